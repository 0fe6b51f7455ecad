"""The rows of `queue_state`, read by plain commands: for Redis before 7 and for users who may run no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from opslib import redis
from opslib.areas.queues import Command, Queue, ask

PRIORITY_SCALE = 2**32  # a prioritized job's score is its priority times this, plus a counter

COUNTS = (
    ("LLEN", b"wait"),
    ("LLEN", b"active"),
    ("ZCARD", b"completed"),
    ("ZCARD", b"failed"),
    ("ZCARD", b"delayed"),
    ("LLEN", b"paused"),
    ("ZCARD", b"prioritized"),
    ("ZCARD", b"waiting-children"),
    ("HEXISTS", b"meta", "paused"),
    ("EXISTS", b"stalled-check"),
)
DELAYED = (("ZRANGE", b"delayed", 0, 0, "WITHSCORES"),)
ENDS = (("LINDEX", b"wait", -1), ("LINDEX", b"wait", 0), ("LINDEX", b"paused", -1), ("LINDEX", b"paused", 0))
PRIORITIZED = (("ZRANGE", b"prioritized", 0, 0, "WITHSCORES"), ("ZRANGE", b"prioritized", -1, -1, "WITHSCORES"))
LOOK = (("EXISTS", b"meta"), *COUNTS, *DELAYED, *ENDS, *PRIORITIZED)


async def read(client: redis.Client, queues: Sequence[Queue]) -> dict[Queue, Any]:
    """A row per queue; None for one that is gone, an error's text for one that cannot be read.

    Raises:
        SourceError: The server is away.
    """
    answers = await ask(client, [_on(queue, *command) for queue in queues for command in LOOK])
    rows: dict[Queue, Any] = {}
    starving: list[tuple[Queue, int]] = []
    for i, queue in enumerate(queues):
        look = answers[i * len(LOOK) : (i + 1) * len(LOOK)]
        error = next((answer for answer in look if isinstance(answer, ResponseError)), None)
        exists, counts, (delayed, *ends), (first, last) = look[0], look[1:11], look[11:16], look[16:]
        if error is not None:
            rows[queue] = str(error).encode()
        elif not exists and not any(counts[:8]):
            rows[queue] = None
        else:
            jobs = [job for job in dict.fromkeys((*ends, *first[:1])) if job is not None]
            rows[queue] = [*counts, delayed[1] if delayed else None, *jobs]
            if first != last:
                starving.append((queue, int(float(last[1]) // PRIORITY_SCALE) * PRIORITY_SCALE))
    lowest = [_on(queue, "ZRANGEBYSCORE", b"prioritized", score, "+inf", "LIMIT", 0, 1) for queue, score in starving]
    for (queue, _), ids in zip(starving, await ask(client, lowest), strict=True):
        rows[queue] += ids
    return rows


def _on(queue: Queue, command: str, part: bytes, *args: str | int) -> tuple[bytes, Command]:
    key = queue.key(part)
    return key, (command, key, *args)
