"""From a queue's event stream to what happened: pure, one stream at a time.

What BullMQ writes (5.63.0 to 6.7.0, and Python 3.4.4; a service test replays it):

    added name          once per job; the only event that carries the name
    waiting [prev]      ready for a worker; prev says from where: none, delayed, active, failed, waiting-children
    delayed delay       not before `delay`, Unix ms; after `active` it is a retry with back-off
    active              a worker began an attempt
    completed, failed   the end; `failed` only once the attempts are used up
    stalled             its worker vanished; follows `waiting prev=active` at once, in the same script
    waiting-children    a parent waits for its flow
    removed             taken out by hand

A stream id begins with the server's time in ms, which is when each thing happened. A job that went back in line after
`active` without having stalled counts as retried: a failed attempt, or a job that asked to be delayed or rate-limited
(BullMQ writes the same for these).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple

Entry = Sequence[Any]
"""One stream entry as Redis sends it: id, then fields and values in turn, all bytes."""


class Kind(Enum):
    """What a fact says of a job."""

    STARTED = auto()
    COMPLETED = auto()
    FAILED = auto()
    RETRIED = auto()
    STALLED = auto()


class Fact(NamedTuple):
    """One thing that happened to one job.

    Attributes:
        kind: What.
        job: The job's id.
        name: The job's name, if its `added` was seen.
        at: When, Unix ms.
        seconds: STARTED: how long it had waited since it was ready. COMPLETED, FAILED: how long the last attempt took.
            None when that beginning was not seen.
    """

    kind: Kind
    job: bytes
    name: bytes | None
    at: int
    seconds: float | None


@dataclass(slots=True)
class _Job:
    name: bytes | None
    ready: int | None = None
    started: int | None = None


class Tracker:
    """What is known of the jobs of one queue.

    Jobs are remembered in two generations, so that memory is bounded at no cost per event: `rotate` forgets those not
    heard of since the rotation before.

    Attributes:
        last_activity: When an attempt last began or ended, Unix ms; None if that was not seen.
    """

    def __init__(self) -> None:
        self.last_activity: int | None = None
        self._jobs: dict[bytes, _Job] = {}
        self._older: dict[bytes, _Job] = {}
        self._handlers: dict[bytes, Callable[[bytes, int, bytes | None], Fact | None]] = {
            b"added": self._added,
            b"waiting": self._waiting,
            b"active": self._active,
            b"completed": self._completed,
            b"failed": self._failed,
            b"delayed": self._delayed,
            b"stalled": self._stalled,
            b"waiting-children": self._waiting_children,
            b"removed": self._removed,
        }

    def __len__(self) -> int:
        return len(self._jobs)

    def rotate(self) -> None:
        """Begin a new generation."""
        self._older, self._jobs = self._jobs, {}

    def learn(self, job: bytes, name: bytes) -> None:
        """Remember a job's name that was found elsewhere, if the job is still of interest."""
        if known := self._jobs.get(job):
            known.name = name

    def ready_since(self, job: bytes) -> int | None:
        """Since when a job has been ready for its next attempt, Unix ms, if that was seen."""
        known = self._jobs.get(job) or self._older.get(job)
        return known.ready if known else None

    def feed(self, entries: Sequence[Entry], *, more: bool) -> tuple[list[Fact], int]:
        """Take entries in order.

        Args:
            entries: The next ones of the stream.
            more: The stream may go on behind the last one. Then an entry whose meaning depends on the next is left.

        Returns:
            What happened, and how many entries were taken: all, or all but the last.
        """
        facts: list[Fact] = []
        for i, (entry_id, fields) in enumerate(entries):
            event, job, value = _read(fields)
            handle = self._handlers.get(event)
            if handle is None or job is None:
                continue
            if value == b"active" and event == b"waiting":
                if i + 1 < len(entries):
                    following = _read(entries[i + 1][1])
                    value = b"stalled" if following[:2] == (b"stalled", job) else value
                elif more:
                    return facts, i
            fact = handle(job, int(entry_id[: entry_id.index(b"-")]), value)
            if fact is not None:
                facts.append(fact)
        return facts, len(entries)

    def _job(self, job: bytes) -> _Job:
        known = self._jobs.get(job)
        if known is None:
            known = self._older.pop(job) if job in self._older else _Job(None)
            self._jobs[job] = known
        return known

    def _added(self, job: bytes, at: int, name: bytes | None) -> None:
        self._removed(job, at, name)  # an id may be used again once its job is gone
        self._jobs[job] = _Job(name, ready=at)

    def _waiting(self, job: bytes, at: int, previous: bytes | None) -> Fact | None:
        known = self._job(job)
        # A delayed job is ready when it is due, though nobody may be there to move it; `promote` moves it earlier.
        due = known.ready if previous == b"delayed" else None
        known.ready, known.started = at if due is None else min(due, at), None
        return Fact(Kind.RETRIED, job, known.name, at, None) if previous == b"active" else None

    def _delayed(self, job: bytes, at: int, delay: bytes | None) -> Fact | None:
        # Every new job comes with `added`: one not known had begun before we looked, and unless somebody called
        # `changeDelay` on it, it is a retry.
        fresh = job in self._jobs or job in self._older
        known = self._job(job)
        retried = known.started is not None or not fresh
        known.ready, known.started = _milliseconds(delay, at), None
        return Fact(Kind.RETRIED, job, known.name, at, None) if retried else None

    def _active(self, job: bytes, at: int, _: bytes | None) -> Fact:
        known = self._job(job)
        ready, known.ready, known.started = known.ready, None, at
        self.last_activity = at
        return Fact(Kind.STARTED, job, known.name, at, _seconds(ready, at))

    def _completed(self, job: bytes, at: int, _: bytes | None) -> Fact:
        known = self._job(job)
        self._removed(job, at, None)
        self.last_activity = at
        return Fact(Kind.COMPLETED, job, known.name, at, _seconds(known.started, at))

    def _failed(self, job: bytes, at: int, _: bytes | None) -> Fact:
        known = self._job(job)  # remembered: somebody may retry it by hand
        started, known.ready, known.started = known.started, None, None
        self.last_activity = at
        return Fact(Kind.FAILED, job, known.name, at, _seconds(started, at))

    def _stalled(self, job: bytes, at: int, _: bytes | None) -> Fact:
        return Fact(Kind.STALLED, job, self._job(job).name, at, None)

    def _waiting_children(self, job: bytes, _: int, __: bytes | None) -> None:
        known = self._job(job)
        known.ready = known.started = None

    def _removed(self, job: bytes, _: int, __: bytes | None) -> None:
        self._jobs.pop(job, None)
        self._older.pop(job, None)


def _read(fields: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Event, job id, and the third value, which is what matters of each event: name, previous state or delay."""
    if len(fields) > 3 and fields[0] == b"event" and fields[2] == b"jobId":  # noqa: PLR2004 - as BullMQ writes them
        return fields[1], fields[3], fields[5] if len(fields) > 5 else None  # noqa: PLR2004 - as BullMQ writes them
    named = dict(zip(fields[::2], fields[1::2], strict=False))
    third = named.get(b"name") or named.get(b"prev") or named.get(b"delay")
    return named.get(b"event"), named.get(b"jobId"), third


def _seconds(begin: int | None, end: int) -> float | None:
    # A due time comes from the producer's clock, which may be ahead of the server's.
    return None if begin is None else max(0, end - begin) / 1000


def _milliseconds(text: bytes | None, otherwise: int) -> int:
    try:
        return otherwise if text is None else int(float(text))
    except (ValueError, OverflowError):
        return otherwise
