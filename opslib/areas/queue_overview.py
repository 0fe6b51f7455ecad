"""Queues as a person wants to see them: jobs by state, who works at them, and how that goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from opslib import redis
from opslib.areas.queue_jobs import Activity, activity
from opslib.areas.queue_state import QueueState, StateReader
from opslib.areas.queues import Command, Queue, ask

COUNTS = ("waiting", "active", "completed", "failed", "delayed", "paused", "prioritized", "waiting_children")
FRESH = timedelta(minutes=10)
"""A failure older than this says nothing of the workers now."""


class _Unheard:
    """Nobody read the events: the jobs' hashes tell since when they have been waiting."""

    def up_to(self, queue: Queue) -> str | None:
        del queue
        return None

    def ready_since(self, queue: Queue, jobs: Sequence[bytes]) -> list[int | None]:
        del queue
        return [None] * len(jobs)


@dataclass(frozen=True, slots=True)
class Overview:
    """One queue now.

    Attributes:
        counts: Jobs by state; `paused` are those set aside by a pause.
        is_paused: Is it paused?
        workers: Connected; None where Redis does not tell us its clients.
        state: Of the workers: `active` at a job, `idle`, `error` (what ended last, failed), `stopped` (there is none).
        oldest: How long the oldest job has been ready for a worker.
        next_delayed: When the next delayed job is due.
        last_activity: When an attempt last began or ended.
        version: Of the BullMQ that made it, as its meta says.
    """

    queue: str
    state: str
    workers: int | None
    is_paused: bool
    counts: Mapping[str, int]
    oldest: timedelta | None
    next_delayed: datetime | None
    last_activity: datetime | None
    version: str | None


async def overviews(
    client: redis.Client, queues: Sequence[Queue], workers: Mapping[Queue, int] | None
) -> list[Overview]:
    """These queues, in order; one that has gone meanwhile is left out.

    Args:
        client: A connection for reading.
        queues: Which.
        workers: From `queue_discovery.attached`.

    Raises:
        SourceError: The server is away or refuses.
    """
    if not queues:
        return []
    reading = await StateReader(client, _Unheard()).read(queues)
    done = await activity(client, queues)
    asked: list[tuple[bytes, Command]] = [(q.key(b"meta"), ("HGET", q.key(b"meta"), "version")) for q in queues]
    versions = dict(zip(queues, await ask(client, asked), strict=True))
    now = datetime.fromtimestamp(reading.now, UTC)
    return [
        Overview(
            queue=queue.name,
            state=_worker_state(state, done[queue], None if workers is None else workers[queue], now),
            workers=None if workers is None else workers[queue],
            is_paused=bool(state.is_paused),
            counts=dict(zip(COUNTS, state.counts, strict=True)),
            oldest=_age(state.ready_since, now),
            next_delayed=None if state.next_delayed is None else datetime.fromtimestamp(state.next_delayed, UTC),
            last_activity=done[queue].at,
            version=version.decode("utf-8", "replace") if isinstance(version, bytes) else None,
        )
        for queue, version in versions.items()
        if (state := reading.queues.get(queue)) is not None
    ]


def _age(since: int | None, now: datetime) -> timedelta | None:
    return None if since is None else max(now - datetime.fromtimestamp(since / 1000, UTC), timedelta())


def _worker_state(state: QueueState, done: Activity, attached: int | None, now: datetime) -> str:
    # The key a worker leaves outlives it by half a minute; its connection does not.
    present = attached > 0 if attached is not None else bool(state.worker_present)
    if not present:
        return "stopped"
    if done.failed and done.at is not None and now - done.at < FRESH:
        return "error"
    return "active" if state.counts[COUNTS.index("active")] else "idle"
