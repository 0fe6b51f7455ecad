"""Whoever answers a scrape of the queues: ours, the floor, and the peers; each a process on a free loopback port."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from demo.processes import Account, Server, free_port
from demo.redis import RedisServer
from tests.bench.scraper import Scraper
from tests.service import queue_kit

ROOT = Path(__file__).parents[2]
NODE = Path(__file__).parent / "node" / "metrics.mjs"


class MissingError(Exception):
    """A peer cannot be installed here; the message says what would install it."""


def _serve(name: str, port: int, argv: list[str], redis: RedisServer, env: Mapping[str, str] | None = None) -> Server:
    def answers() -> bool:
        scraper = Scraper(port)
        try:
            return bool(scraper.page())
        finally:
            scraper.close()

    log = redis.socket.parent / f"{name}.log"
    own = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    return Server(name, argv, log=log, account=Account.ours(), ready=answers, env=own)


@contextlib.contextmanager
def exporter(redis: RedisServer, dsn: str) -> Iterator[tuple[Server, int]]:
    """Ours, as an operator starts it, with its counts kept in a database."""
    port = free_port()
    opsctl = str(Path(sys.executable).parent / "opsctl")
    env = {"REDIS_URL": redis.tcp_url, "OPS_DATABASE_URL": dsn, "OPS_LOG_FORMAT": "json"}
    argv = [opsctl, "exporter", "run", "queues", "--listen", f"127.0.0.1:{port}"]
    with _serve("opsctl", port, argv, redis, env) as server:
        yield server, port


def floor(redis: RedisServer, _: int, port: int) -> Server:
    """One script and text by hand."""
    return _serve("floor", port, [sys.executable, "-m", "tests.bench.queue_floor", redis.tcp_url, str(port)], redis)


def python_bullmq(redis: RedisServer, queues: int, port: int) -> Server:
    """The Python client's getJobCounts in a loop."""
    argv = [sys.executable, "-m", "tests.bench.peer_bullmq", redis.tcp_url, str(port), str(queues)]
    return _serve("python-bullmq", port, argv, redis)


def node_bullmq(redis: RedisServer, queues: int, port: int) -> Server:
    """BullMQ's own exportPrometheusMetrics in a loop."""
    if shutil.which("node") is None:
        raise MissingError("apt-get install nodejs npm")
    folder = queue_kit.install("5.63.0")
    argv = ["node", str(NODE), str(folder), str(redis.port), str(port), str(queues)]
    return _serve("node-bullmq", port, argv, redis)


def redis_exporter(redis: RedisServer, _: int, port: int) -> Server:
    """Debian's prometheus-redis-exporter, told to find every queue's keys by pattern."""
    program = shutil.which("prometheus-redis-exporter")
    if program is None:
        raise MissingError("apt-get install prometheus-redis-exporter")
    kinds = ("wait", "active", "completed", "failed", "delayed", "paused", "prioritized", "waiting-children")
    keys = ",".join(f"bull:*:{kind}" for kind in kinds)
    argv = [
        program, "-redis.addr", redis.tcp_url, "-web.listen-address", f"127.0.0.1:{port}", "-check-keys", keys,
        "-check-keys-batch-size", "1000",
    ]  # fmt: skip
    return _serve("redis-exporter", port, argv, redis)


PEERS: Mapping[str, Callable[[RedisServer, int, int], Server]] = {
    "floor: one Lua, own text": floor,
    "Python bullmq getJobCounts": python_bullmq,
    "BullMQ exportPrometheusMetrics": node_bullmq,
    "prometheus-redis-exporter": redis_exporter,
}
