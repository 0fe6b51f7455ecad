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
from opslib.errors import NotFoundError, RefusedError, SourceError

OLDEST, NEWEST = (5, 63, 0), 6
"""The oldest BullMQ, and the newest major version of it, whose workers our tests let run what we wrote."""

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
        return match is not None and OLDEST <= tuple(map(int, match.groups())) < (NEWEST + 1,)


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

    async def put(self, name: str, data: Any, options: Mapping[str, Any]) -> str:
        """Add a job with BullMQ's own options; returns its id.

        Raises:
            SourceError: See `add`.
        """
        with _explained():
            return str((await self._queue.add(name, data, dict(options))).id)

    async def retry(self, id_: str) -> None:
        """Put one failed job back in line. The package's `retryJobs` takes a count, and retries them all.

        Raises:
            NotFoundError: There is no such job.
            SourceError: It is not failed (any more), or Redis is away or refuses.
        """
        job = await self._job(id_)
        with _explained():
            await job.retry("failed")

    async def remove(self, id_: str) -> None:
        """Remove one job, with its children.

        Raises:
            NotFoundError, SourceError: See `retry`; a worker may be at it.
        """
        job = await self._job(id_)
        with _explained():
            await job.remove()

    async def promote(self, id_: str) -> None:
        """Let a delayed job run now.

        Raises:
            NotFoundError, SourceError: See `retry`.
        """
        job = await self._job(id_)
        with _explained():
            await job.promote()

    async def pause(self) -> None:
        """Let workers take no more jobs; those at one finish it.

        Raises:
            SourceError: Redis is away, or refuses.
        """
        with _explained():
            await self._queue.pause()

    async def resume(self) -> None:
        """Let workers take jobs again.

        Raises:
            SourceError: Redis is away, or refuses.
        """
        with _explained():
            await self._queue.resume()

    async def drain(self, *, delayed: bool) -> None:
        """Remove every job that waits.

        Args:
            delayed: Those not due yet, too.

        Raises:
            SourceError: Redis is away, or refuses.
        """
        with _explained():
            await self._queue.drain(delayed)

    async def clean(self, state: str, *, older_seconds: float, limit: int) -> int:
        """Remove jobs that ended longer ago than that, at most `limit`; returns how many.

        Raises:
            SourceError: Redis is away, or refuses.
        """
        with _explained():
            return len(await self._queue.clean(int(older_seconds * 1000), limit, state))

    async def _job(self, id_: str) -> Any:
        with _explained():
            job = await bullmq.Job.fromId(self._queue, id_)
        if job is None:
            raise NotFoundError(f"queue {self._queue.name} has no job {id_} (any more)")
        return job


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
async def writer(
    url: str, name: str, *, prefix: str, force: bool = False, unserved: bool = False
) -> AsyncIterator[Writer]:
    """A queue to be written to while the block runs.

    Args:
        url: The Redis.
        name: The queue.
        prefix: BullMQ's key prefix.
        force: Write even if the version is not proven, or no worker there.
        unserved: It needs no worker: nothing is added, or what is added may wait.

    Raises:
        RefusedError: The version is not proven, or nobody works there.
        SourceError: Redis is away, or refuses.
    """
    found = await standing(url, name, prefix=prefix)
    if not force:
        _accept(found, unserved=unserved)
    client = redis.client(url, name=NAME, timeout=TIMEOUT_SECONDS, text=True)
    try:
        yield Writer(bullmq.Queue(name, {"connection": client, "prefix": prefix}))
    finally:
        await redis.close(client)


def _accept(found: Standing, *, unserved: bool) -> None:
    if not (found.served or unserved):
        raise RefusedError(
            f"queue {found.name} has no worker: a job in it would wait for ever. Start one, or name another queue "
            "(`opsctl queues list` shows who works where)"
        )
    if not found.proven:
        raise RefusedError(
            f"queue {found.name} is kept by {found.version or 'an unknown version of BullMQ'}; "
            f"writing is proven for {'.'.join(map(str, OLDEST))} to {NEWEST}.x"
        )


@contextlib.contextmanager
def _explained() -> Any:
    try:
        yield
    except AWAY as exc:
        raise away(exc) from exc
    except exceptions.ResponseError as exc:
        raise SourceError(f"Redis refuses the write: {exc}; its user needs +@write +@scripting on the queue") from exc
    except Exception as exc:
        # What a script of BullMQ's refuses (a job that is not failed, or locked) comes as a bare one.
        if type(exc) not in (Exception, TypeError, ValueError):
            raise
        raise SourceError(f"BullMQ refuses: {exc}") from exc
