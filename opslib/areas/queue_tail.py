"""Follows the event streams of all queues on one connection, and hands on what happened, each thing once.

One XREAD takes what is new in every stream (in a cluster one per slot), without blocking: batched, an event costs a
few microseconds; woken for each, it would cost thirty. What was counted and the place up to which it was counted go
into the checkpoint together. After a restart each stream is read again from its beginning up to that place, only to
know the jobs under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote_from_bytes

import structlog
from redis.exceptions import NoPermissionError, ResponseError

from opslib import redis
from opslib.areas.queue_discovery import Discovery
from opslib.areas.queue_events import Entry, Fact, Kind, Tracker
from opslib.areas.queue_places import (
    EMPTY,
    START,
    Gap,
    Place,
    Stream,
    advance,
    beginning,
    end,
    format_id,
    parse_id,
    review,
)
from opslib.areas.queues import JOB_FIELDS, RIGHTS, Command, Job, Queue, ask, ask_in_turns, slots
from opslib.checkpoint import Checkpoint
from opslib.errors import SourceError

log = structlog.get_logger()

PAUSE = 0.2  # seconds between two looks; 200 idle streams cost 3 ms of CPU a second
BUSY_PAUSE = 0.05  # when one look finds many: a queue at full speed fills its stream in a quarter of a second
BUSY = 250  # entries that are many
RETRY = 1.0  # seconds after the server did not answer
REVIEW_EVERY = 5.0  # seconds between two checks that a silent stream is still the same
STREAMS = 34  # per command: 0.15 ms of the server when there is nothing in them, 0.4 ms with some events in each
ENTRIES = 1000  # per command at most, of all its streams: more would hold the server longer than 0.5 ms
LEAST, MOST = 25, 500  # entries per stream and look
JOBS_REMEMBERED = 100_000  # over all queues, about 25 MB


class Sink(Protocol):
    """Who counts."""

    def count(self, queue: Queue, fact: Fact) -> None:
        """This happened. `fact.name` is None if nobody knows the job's name any more."""

    def miss(self, queue: Queue, gap: Gap) -> None:
        """Events were gone before they were read."""


@dataclass(slots=True, eq=False)
class Followed:
    """One stream being followed.

    Attributes:
        queue: Whose.
        place: Everything up to here is counted.
        cursor: Everything up to here was read; behind `place` while the jobs under way are being learnt again.
        tracker: What is known of its jobs.
        most: Entries to take at the next look; it grows while there are more, and shrinks when there are few.
        quiet: Nothing was read since the last review.
    """

    queue: Queue
    place: Place
    cursor: str
    tracker: Tracker
    most: int = LEAST
    quiet: bool = True

    @property
    def key(self) -> bytes:
        """The stream's key."""
        return self.queue.key(b"events")

    @property
    def saved_as(self) -> str:
        """What its place is called in the checkpoint: JSON there takes neither NUL nor bytes that are no text."""
        return quote_from_bytes(self.key)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one look took from one stream.

    Attributes:
        stream: Which.
        ids: Of the entries behind the place, which count.
        facts: What they say.
    """

    stream: Followed
    ids: Sequence[bytes]
    facts: Sequence[Fact]


class Tail:
    """Follows the streams of the queues it is shown.

    Args:
        client: A connection of its own.
        discovery: Which queues there are.
        checkpoint: Where the places are kept. It must be loaded before `look`.
        sink: Who counts.

    Attributes:
        failure: Why the last look failed; None if it did not.
        caught_up: Every queue of a whole sweep was read to its end once.
    """

    def __init__(self, client: redis.Client, discovery: Discovery, checkpoint: Checkpoint, sink: Sink) -> None:
        self.failure: SourceError | None = None
        self.caught_up = False
        self._client = client
        self._discovery = discovery
        self._checkpoint = checkpoint
        self._sink = sink
        self._followed: dict[Queue, Followed] = {}
        self._positions: dict[str, Any] | None = None
        self._pending: Sequence[Batch] | None = None
        self._reviewed = 0.0

    def up_to(self, queue: Queue) -> str | None:
        """The last event read of a queue; None if its events are not followed."""
        followed = self._followed.get(queue)
        return followed.cursor if followed else None

    def ready_since(self, queue: Queue, jobs: Sequence[bytes]) -> list[int | None]:
        """Since when each job has been ready for its next attempt, Unix ms, if the events say so."""
        followed = self._followed.get(queue)
        if followed is None:
            return [None] * len(jobs)
        return [followed.tracker.ready_since(job) for job in jobs]

    def last_activity(self, queue: Queue) -> int | None:
        """When an attempt last began or ended, Unix ms, if the events say so."""
        followed = self._followed.get(queue)
        return followed.tracker.last_activity if followed else None

    async def run(self) -> None:
        """Look again and again, as long as the checkpoint is loaded."""
        while True:
            if not self._checkpoint.loaded:
                await asyncio.sleep(PAUSE)
                continue
            try:
                found, full = await self.look()
            except SourceError as exc:
                self.failure = exc
                await asyncio.sleep(RETRY)
                continue
            self.failure = None
            await asyncio.sleep(0 if full else BUSY_PAUSE if found > BUSY else PAUSE)

    async def look(self) -> tuple[int, bool]:
        """Take what is new in every stream, and count it.

        Returns:
            How many entries, and whether there may be more at once.

        Raises:
            SourceError: The server is away. Nothing is lost or counted twice by looking again.
        """
        if self._checkpoint.position is not self._positions:
            # Loaded, or loaded anew after another exporter had the name: what it holds is the truth now.
            self._positions, self._pending = self._checkpoint.position, None
            self._followed.clear()
        swept = self._discovery.sweeps > 0
        await self._follow()
        full = False
        if self._pending is None:
            self._pending, full = await self._read()
        batches = self._pending
        streams, jobs = await self._ask_about(batches)
        # From here to the end nothing waits: counts and places go together.
        if self._checkpoint.position is not self._positions:
            return 0, True
        self._pending = None
        for batch, stream in zip(batches, streams, strict=True):
            self._apply(batch, stream, jobs)
        if sum(len(followed.tracker) for followed in self._followed.values()) > JOBS_REMEMBERED // 2:
            for followed in self._followed.values():
                followed.tracker.rotate()
        if asyncio.get_running_loop().time() - self._reviewed > REVIEW_EVERY:
            await self._review()
        self.caught_up |= swept and not full
        return sum(len(batch.ids) for batch in batches), full

    async def _follow(self) -> None:
        """Begin with the queues that are new, and let go of those that are gone."""
        for queue in self._followed.keys() - self._discovery.queues.keys():
            del self._followed[queue]
        new = [queue for queue in self._discovery.queues if queue not in self._followed]
        for queue, stream in zip(new, await self._info(new), strict=True):
            followed = Followed(queue, Place(), format_id(START), Tracker())
            if stream is None or queue not in self._discovery.queues:
                continue
            stored = self._checkpoint.position.get(followed.saved_as)
            born_later = self._discovery.queues[queue]
            if stored is not None:
                followed.place = Place.from_json(stored)
            elif self._checkpoint.kept or born_later:
                followed.place = beginning(stream, born_later=born_later)
            else:
                # Without a store every start would count the same history again.
                followed.place = end(stream)
            self._followed[queue] = followed
            self._checkpoint.move(followed.saved_as, followed.place.to_json())

    async def _read(self) -> tuple[list[Batch], bool]:
        by_key = {followed.key: followed for followed in self._followed.values()}
        answers: list[Any] = []
        await ask_in_turns(self._client, ([command] for command in self._commands()), answers.append)
        found: dict[bytes, Sequence[Entry]] = {}
        for answer in answers:
            if isinstance(answer, ResponseError):
                await self._drop_unreadable()
                raise SourceError(f"Redis refuses XREAD: {answer}; its user needs {RIGHTS}")
            found.update(answer or ())
        batches = []
        full = False
        for key, followed in by_key.items():
            entries = found.get(key, ())
            if more := len(entries) >= followed.most:
                full = True
                followed.most = min(MOST, followed.most * 2)
            elif len(entries) < followed.most // 4:
                followed.most = max(LEAST, followed.most // 2)
            if entries:
                batches.append(self._feed(followed, entries, more=more))
        return batches, full

    def _commands(self) -> Iterator[tuple[bytes, Command]]:
        """Those that ask for everything new. Streams that have much to say share a command with few others."""
        for group in slots(self._client, self._followed):
            by_most: dict[int, list[Followed]] = {}
            for queue in group:
                by_most.setdefault((followed := self._followed[queue]).most, []).append(followed)
            for most, streams in by_most.items():
                together = min(STREAMS, ENTRIES // most)
                for i in range(0, len(streams), together):
                    members = streams[i : i + together]
                    keys, cursors = [member.key for member in members], [member.cursor for member in members]
                    yield keys[0], ("XREAD", "COUNT", most, "STREAMS", *keys, *cursors)

    async def _drop_unreadable(self) -> None:
        """Let go of streams that turned into something else: one of them would fail the XREAD of all."""
        followed = list(self._followed)
        for queue, stream in zip(followed, await self._info(followed), strict=True):
            if stream is None:
                del self._followed[queue]

    def _feed(self, followed: Followed, entries: Sequence[Entry], *, more: bool) -> Batch:
        followed.quiet = False
        known = 0
        if (cursor := parse_id(followed.cursor)) < followed.place.id:
            # Counted before: told to the tracker only, so that it knows the jobs under way.
            known = sum(cursor < parse_id(entry[0]) <= followed.place.id for entry in entries)
            followed.tracker.feed(entries[:known], more=False)
        facts, taken = followed.tracker.feed(entries[known:], more=more)
        if known + taken:
            followed.cursor = entries[known + taken - 1][0].decode()
        return Batch(followed, [entry[0] for entry in entries[known : known + taken]], facts)

    async def _info(self, queues: Sequence[Queue]) -> list[Stream | None]:
        """The streams as they are; None for one that cannot be read."""
        keys = [queue.key(b"events") for queue in queues]
        answers = await ask(self._client, [(key, ("XINFO", "STREAM", key)) for key in keys])
        return [_stream(answer) for answer in answers]

    async def _ask_about(self, batches: Sequence[Batch]) -> tuple[list[Stream | None], dict[tuple[Queue, bytes], Job]]:
        """The streams of these batches as they are now, and the jobs in them that are not known by name."""
        counted = [batch for batch in batches if batch.ids]
        unknown = list(
            dict.fromkeys((b.stream.queue, fact.job) for b in counted for fact in b.facts if fact.name is None)
        )
        commands: list[tuple[bytes, Command]] = [(b.stream.key, ("XINFO", "STREAM", b.stream.key)) for b in counted]
        for queue, job in unknown:
            commands.append((queue.key(job), ("HMGET", queue.key(job), *JOB_FIELDS)))
        answers = iter(await ask(self._client, commands))
        streams = [_stream(next(answers)) if batch.ids else None for batch in batches]
        jobs = {
            key: Job.parse(fields) for key, fields in zip(unknown, answers, strict=True) if isinstance(fields, list)
        }
        return streams, jobs

    def _apply(self, batch: Batch, stream: Stream | None, jobs: Mapping[tuple[Queue, bytes], Job]) -> None:
        if not batch.ids:
            return
        followed = batch.stream
        for fact in batch.facts:
            job = jobs.get((followed.queue, fact.job)) if fact.name is None else None
            if job is not None and job.name is not None:
                followed.tracker.learn(fact.job, job.name)
                self._sink.count(followed.queue, _completed(fact, job))
            else:
                self._sink.count(followed.queue, fact)
        if stream is None or stream is EMPTY:  # gone since we read it: the review will see to it
            self._move(followed, Place(parse_id(batch.ids[-1]), None, followed.place.first), None)
        else:
            self._move(followed, *advance(followed.place, batch.ids, stream))

    async def _review(self) -> None:
        """Are the streams that gave nothing still the streams they were?"""
        quiet = [followed for followed in self._followed.values() if followed.quiet]
        streams = await self._info([followed.queue for followed in quiet])
        if self._checkpoint.position is not self._positions:
            return
        for followed, stream in zip(quiet, streams, strict=True):
            if stream is None:
                continue
            place, gap = review(followed.place, stream)
            if place.id != followed.place.id:
                log.info("queue_events_restarted", queue=followed.queue.name, at=format_id(place.id))
                followed.cursor = format_id(place.id)
            if place != followed.place:
                self._move(followed, place, gap)
        for followed in self._followed.values():
            followed.quiet = True
        self._reviewed = asyncio.get_running_loop().time()

    def _move(self, followed: Followed, place: Place, gap: Gap | None) -> None:
        if gap is not None:
            log.warning("queue_events_missed", queue=followed.queue.name, lost=gap.lost)
            self._sink.miss(followed.queue, gap)
        followed.place = place
        self._checkpoint.move(followed.saved_as, place.to_json())


def _stream(answer: Any) -> Stream | None:
    if isinstance(answer, NoPermissionError):
        raise SourceError(f"Redis refuses XINFO STREAM: {answer}; its user needs {RIGHTS}")
    if isinstance(answer, ResponseError):
        return EMPTY if "no such key" in str(answer) else None
    return Stream.parse(answer)


def _completed(fact: Fact, job: Job) -> Fact:
    """A fact about a job that was not known, with what its hash still tells."""
    begin = None
    if fact.kind in (Kind.COMPLETED, Kind.FAILED):
        begin = job.processed_on
    elif fact.kind is Kind.STARTED and job.starts == 1:
        begin = job.due
    seconds = fact.seconds
    if seconds is None and begin is not None:
        seconds = max(0, fact.at - begin) / 1000
    return fact._replace(name=job.name, seconds=seconds)
