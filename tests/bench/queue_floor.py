"""The floor: the least a scrape of all queues can cost in Python. A process of its own.

One EVALSHA over all queues (ten values each: eight states, paused, the oldest job's timestamp), text by hand, one
thread, one connection, no framework, nothing isolated. It blocks Redis for the whole script and does nothing else.

    python -m tests.bench.queue_floor REDIS_URL PORT
"""

from __future__ import annotations

import re
import socket
import sys
import time

from redis import Redis

SCRIPT = """
local call, rows = redis.call, {}
for i, base in ipairs(KEYS) do
  local last = call('LINDEX', base .. 'wait', -1)
  rows[i] = {
    call('LLEN', base .. 'wait'), call('LLEN', base .. 'active'), call('ZCARD', base .. 'completed'),
    call('ZCARD', base .. 'failed'), call('ZCARD', base .. 'delayed'), call('LLEN', base .. 'paused'),
    call('ZCARD', base .. 'prioritized'), call('ZCARD', base .. 'waiting-children'),
    call('HEXISTS', base .. 'meta', 'paused'), last and call('HGET', base .. last, 'timestamp') or 0,
  }
end
return rows
"""
NAMES = (
    *("waiting", "active", "completed", "failed", "delayed", "paused", "prioritized", "waiting_children"),
    *("is_paused", "oldest_waiting_age_seconds"),
)


def main() -> None:
    """Answer every request with the page."""
    url, port = sys.argv[1:]
    redis = Redis.from_url(url)
    found = sorted(redis.scan_iter("bull:*:meta", count=10_000))
    bases = [key[: -len(b"meta")] for key in found]
    queues = [re.sub(rb"^bull:(.*):meta$", rb"\1", key).decode() for key in found]
    sha = redis.script_load(SCRIPT)
    server = socket.create_server(("127.0.0.1", int(port)))
    while True:
        client, _ = server.accept()
        with client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while client.recv(65536):
                rows = redis.evalsha(sha, len(bases), *bases)
                now = time.time()
                for row in rows:
                    row[9] = now - int(row[9]) / 1000
                lines = []
                for i, name in enumerate(NAMES):
                    lines.append(f"# TYPE bitloot_queue_{name} gauge")
                    lines += [
                        f'bitloot_queue_{name}{{queue="{q}"}} {row[i]}' for q, row in zip(queues, rows, strict=True)
                    ]
                body = ("\n".join(lines) + "\n").encode()
                client.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(body), body)
                )


if __name__ == "__main__":
    main()
