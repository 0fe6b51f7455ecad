"""Everything we write into BullMQ queues, through the official package and nothing else.

A write is refused where nobody knows what it would do: to a queue that another version of BullMQ keeps than those we
have proven ourselves against, and to one that no worker serves, where a job would wait for ever.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import bullmq
from redis import exceptions

from opslib import redis
from opslib.areas.queue_discovery import attached
from opslib.areas.queues import AWAY, Queue, ask, away, connect
from opslib.errors import RefusedError, SourceError

PROVEN = ((5, 63, 0), (6, 7, 0))
"""The oldest and the newest BullMQ whose workers our tests let run what we wrote."""

TIMEOUT_SECONDS = 5.0
ATTEMPTS = 3
BACKOFF_MS = 2_000
_VERSION = re.compile(r"bullmq:(\d+)\.(\d+)\.(\d+)")
NAME = "opsctl-writes"


@dataclass(frozen=True, slots=True)
class Standing:
    """What a queue says of itself.

    Attributes:
        name: The queue.
        version: The BullMQ that keeps it, as its `meta` says; None where it says nothing.
        served: A worker has shown itself within half a minute, or is connected now.
    """

    name: str
    version: str | None
    served: bool

    @property
    def proven(self) -> bool:
        """Is that a version we know?"""
        match = _VERSION.fullmatch(self.version or "")
        return match is not None and PROVEN[0] <= tuple(map(int, match.groups())) <= PROVEN[1]


class Writer:
    """One queue, to be written to.

    Args:
        queue: The official client.
    """

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    async def add(self, name: str, data: Mapping[str, Any], *, job_id: str, keep_seconds: int) -> None:
        """Add a job: 3 attempts, 2 s before the second and twice that before the third.

        Args:
            name: What workers tell it apart by.
            data: Its payload.
            job_id: While a job of that id is known, none is added. No colon in it: BullMQ's keys are made of those.
            keep_seconds: How long it stays known after it completed; failed jobs stay.

        Raises:
            SourceError: Redis is away, or refuses. The job may have been added all the same.
        """
        options = {
            "jobId": job_id,
            "attempts": ATTEMPTS,
            "backoff": {"type": "exponential", "delay": BACKOFF_MS},
            "removeOnComplete": {"age": keep_seconds},
            "removeOnFail": False,
        }
        with _explained():
            await self._queue.add(name, dict(data), options)


async def standing(url: str, name: str, *, prefix: str) -> Standing:
    """How a queue stands.

    Raises:
        SourceError: Redis is away, or refuses.
    """
    queue = Queue(prefix.encode(), name.encode())
    client = connect(url, name=NAME, timeout=TIMEOUT_SECONDS)
    try:
        meta, check = queue.key(b"meta"), queue.key(b"stalled-check")
        version, present = await ask(client, [(meta, ("HGET", meta, "version")), (check, ("EXISTS", check))])
        for answer in (version, present):
            if isinstance(answer, exceptions.ResponseError):
                raise SourceError(f"Redis refuses to say how queue {name} stands: {answer}")
        # The key has gaps of half a minute on a very near Redis; a connected worker is one as well.
        workers = {} if present else await attached(client, [queue]) or {}
    finally:
        await redis.close(client)
    return Standing(name, version.decode() if version is not None else None, bool(present or workers.get(queue)))


@contextlib.asynccontextmanager
async def writer(url: str, name: str, *, prefix: str, force: bool = False) -> AsyncIterator[Writer]:
    """A queue to be written to while the block runs.

    Args:
        url: The Redis.
        name: The queue.
        prefix: BullMQ's key prefix.
        force: Write even if the version is not proven, or no worker there.

    Raises:
        RefusedError: The version is not proven, or nobody works there.
        SourceError: Redis is away, or refuses.
    """
    found = await standing(url, name, prefix=prefix)
    if not force:
        _accept(found)
    client = redis.client(url, name=NAME, timeout=TIMEOUT_SECONDS, text=True)
    try:
        yield Writer(bullmq.Queue(name, {"connection": client, "prefix": prefix}))
    finally:
        await redis.close(client)


def _accept(found: Standing) -> None:
    if not found.served:
        raise RefusedError(
            f"queue {found.name} has no worker: a job in it would wait for ever. Start one, or name another queue "
            "(`opsctl queues list` shows who works where)"
        )
    if not found.proven:
        oldest, newest = (".".join(map(str, version)) for version in PROVEN)
        raise RefusedError(
            f"queue {found.name} is kept by {found.version or 'an unknown version of BullMQ'}; "
            f"writing is proven for {oldest} to {newest}"
        )


@contextlib.contextmanager
def _explained() -> Any:
    try:
        yield
    except AWAY as exc:
        raise away(exc) from exc
    except exceptions.ResponseError as exc:
        raise SourceError(
            f"Redis refuses to add a job: {exc}; its user needs +@write +@scripting on the queue"
        ) from exc
