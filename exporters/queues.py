"""BullMQ queues: is work waiting, is anybody doing it, and what became of it?

Invariant: each job that ended is in exactly one counter, by queue, result and name, though the application removes
completed jobs at once: they are counted from the event streams. The jobs in each state are read at every scrape.
Source: BullMQ's keys (`opslib.areas.queues`) and its events (`opslib.areas.queue_events`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence

import structlog

from exporters.signals import queues as signals
from opslib import redis
from opslib.areas.queue_discovery import Discovery, attached
from opslib.areas.queue_events import Fact, Kind
from opslib.areas.queue_places import Gap
from opslib.areas.queue_state import QueueState, StateReader
from opslib.areas.queue_tail import Tail
from opslib.areas.queues import Queue, connect
from opslib.checkpoint import Checkpoint
from opslib.collector import CHECKPOINT_LAG, AtScrape, Collector
from opslib.errors import CheckpointHeldError, SourceError
from opslib.exposition import Block, Family, Part
from opslib.settings import Settings
from opslib.spec import Counter, Gauge, Histogram, Metric, Subject
from opslib.tally import Tally

log = structlog.get_logger()

STATES = (
    Gauge("bitloot_queue_waiting", "Jobs ready for a worker.", ("queue",)),
    Gauge("bitloot_queue_active", "Jobs a worker is at.", ("queue",)),
    Gauge("bitloot_queue_completed", "Completed jobs kept; most queues remove them at once.", ("queue",)),
    Gauge("bitloot_queue_failed", "Failed jobs kept: attempts used up.", ("queue",)),
    Gauge("bitloot_queue_delayed", "Jobs not due yet: delayed, or between two attempts.", ("queue",)),
    Gauge("bitloot_queue_paused", "Jobs set aside by a pause (BullMQ 6 leaves them waiting).", ("queue",)),
    Gauge("bitloot_queue_prioritized", "Jobs ready for a worker, by priority.", ("queue",)),
    Gauge("bitloot_queue_waiting_children", "Jobs waiting for their flow's children.", ("queue",)),
)
IS_PAUSED = Gauge("bitloot_queue_is_paused", "1 if the queue is paused, else 0.", ("queue",))
OLDEST = Gauge(
    "bitloot_queue_oldest_waiting_age_seconds",
    "How long the oldest job has been ready for a worker; absent when none is.",
    ("queue",),
)
NEXT_DELAYED = Gauge(
    "bitloot_queue_next_delayed_timestamp_seconds",
    "When the next delayed job is due, Unix time; absent when none is delayed.",
    ("queue",),
)
WORKER_PRESENT = Gauge(
    "bitloot_queue_worker_present", "1 if a worker has shown itself within half a minute, else 0.", ("queue",)
)
WORKERS = Gauge(
    "bitloot_queue_workers", "Workers connected; absent where Redis does not tell us its clients.", ("queue",)
)
LAST_ACTIVITY = Gauge(
    "bitloot_queue_last_activity_timestamp_seconds", "When an attempt last began or ended, Unix time.", ("queue",)
)
GAUGES: tuple[Metric, ...] = (
    *STATES,
    IS_PAUSED,
    OLDEST,
    NEXT_DELAYED,
    WORKER_PRESENT,
    WORKERS,
    LAST_ACTIVITY,
)
JOBS = Counter(
    "bitloot_queue_jobs_total",
    "Jobs that ended; failed only once their attempts were used up.",
    ("queue", "result", "name"),
)
RETRIES = Counter(
    "bitloot_queue_retries_total",
    "Times a started job went back in line: a failed attempt with attempts left, or delayed or rate-limited by itself.",
    ("queue", "name"),
)
STALLED = Counter("bitloot_queue_stalled_total", "Times a worker vanished with a job in its hands.", ("queue",))
EVENTS_LOST = Counter(
    "bitloot_queue_events_lost_total", "Events trimmed before they were read, where their number is known.", ("queue",)
)
EVENT_GAPS = Counter(
    "bitloot_queue_event_gaps_total", "Times events were gone before they were read, however many.", ("queue",)
)
DURATION = Histogram(
    "bitloot_job_duration_seconds",
    "How long the last attempt of a job that ended took.",
    ("queue", "name"),
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10),
)
WAIT = Histogram(
    "bitloot_job_wait_seconds",
    "How long a job had been ready before an attempt began.",
    ("queue", "name"),
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300),
)
COUNTED: tuple[Metric, ...] = (JOBS, RETRIES, STALLED, EVENTS_LOST, EVENT_GAPS, DURATION, WAIT)

NAMES_PER_QUEUE = 200  # job names are the application's data; one that makes them up must not flood Prometheus
NAME_LENGTH = 200  # characters
OTHER, UNKNOWN = "other", "unknown"
RESULTS = {Kind.COMPLETED: "completed", Kind.FAILED: "failed"}

STATE_TIMEOUT = 0.45  # seconds: below the scrape's deadline, so that what is said is why
TAIL_TIMEOUT = 2.0
BACKGROUND_TIMEOUT = 1.0
SAVE_EVERY = 1.0
WORKERS_EVERY = 15.0
RETRY = 1.0


class Jobs:
    """Turns facts into counts; job names are bounded here.

    Args:
        tally: The counts.

    Attributes:
        others: Facts counted under `other`.
    """

    def __init__(self, tally: Tally) -> None:
        self.others = 0
        self._tally = tally
        self._names: dict[str, set[str]] | None = None
        self._introduced: set[Queue] = set()

    def introduce(self, queues: Iterable[Queue]) -> None:
        """Show what has not happened in these queues as 0."""
        for queue in set(queues) - self._introduced:
            self._introduced.add(queue)
            for metric in (STALLED, EVENTS_LOST, EVENT_GAPS):
                self._tally.add(metric, queue.name, amount=0)

    def count(self, queue: Queue, fact: Fact) -> None:
        """This happened."""
        label = queue.name
        if fact.kind is Kind.STALLED:
            self._tally.add(STALLED, label)
            return
        name = self._name(label, fact.name)
        if fact.kind is Kind.RETRIED:
            self._tally.add(RETRIES, label, name)
        elif fact.kind is Kind.STARTED:
            if fact.seconds is not None:
                self._tally.observe(WAIT, fact.seconds, label, name)
        else:
            self._tally.add(JOBS, label, RESULTS[fact.kind], name)
            if fact.seconds is not None:
                self._tally.observe(DURATION, fact.seconds, label, name)

    def miss(self, queue: Queue, gap: Gap) -> None:
        """Events were gone before they were read."""
        self._tally.add(EVENT_GAPS, queue.name)
        self._tally.add(EVENTS_LOST, queue.name, amount=gap.lost or 0)

    def _name(self, queue: str, raw: bytes | None) -> str:
        if raw is None:
            return UNKNOWN
        if self._names is None:
            self._names = {}
            for known, _, name in self._tally.labels(JOBS):
                self._names.setdefault(known, set()).add(name)
        names = self._names.setdefault(queue, set())
        name = raw.decode("utf-8", "backslashreplace")[:NAME_LENGTH]
        if name not in names:
            if len(names) >= NAMES_PER_QUEUE:
                self.others += 1
                return OTHER
            names.add(name)
            # From 0: a series born at 1 shows no increase.
            for result in RESULTS.values():
                self._tally.add(JOBS, queue, result, name, amount=0)
            self._tally.add(RETRIES, queue, name, amount=0)
        return name


class Queues(Collector):
    """All queues of one Redis.

    Args:
        url: The Redis; see `opslib.redis`.
        prefix: BullMQ's key prefix.
        checkpoint_name: Whose counts these are.
        dsn: The ops database that keeps the counts, if any.
    """

    name = "queues"
    refresh = AtScrape()

    def __init__(self, url: str, *, prefix: str, checkpoint_name: str, dsn: str | None) -> None:
        names = {"state": STATE_TIMEOUT, "events": TAIL_TIMEOUT, "discovery": BACKGROUND_TIMEOUT}
        self._clients = [connect(url, name=f"opsctl-queues-{name}", timeout=timeout) for name, timeout in names.items()]
        state, events, self._background = self._clients
        self.tally = Tally(COUNTED, durable_only=dsn is not None)
        self.checkpoint = Checkpoint(checkpoint_name, dsn, self.tally)
        self.discovery = Discovery(self._background, prefix)
        self._jobs = Jobs(self.tally)
        self._families = {metric: Family(metric) for metric in GAUGES}
        self._shown: list[Queue] = []
        self._by_name: dict[str, Queue] = {}
        self._names: list[str] = []
        self._states: list[QueueState] = []
        self._still: list[Block] = []
        self._alike = 0
        self._tail = Tail(events, self.discovery, self.checkpoint, self._jobs)
        self._reader = StateReader(state, self._tail)
        self._workers: Mapping[Queue, int] | None = None
        self._held: CheckpointHeldError | None = None
        self._blind: SourceError | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def dropped(self) -> int:  # type: ignore[override]
        """Facts that had to be counted under `other`, and queues whose names as text are another's."""
        return self._jobs.others + self._alike

    def ready(self) -> bool:
        """Are all queues known, the counts of earlier runs loaded, and what happened in between counted?"""
        return self._tail.caught_up

    async def start(self) -> None:
        """Begin to discover, to follow the events and to save."""
        loops: dict[str, Coroutine[None, None, None]] = {
            "discovery": self._look_around(),
            "events": self._tail.run(),
            "checkpoint": self._save(),
        }
        self._tasks = [asyncio.create_task(loop, name=f"queues {name}") for name, loop in loops.items()]

    async def stop(self) -> None:
        """End it; what is counted is saved."""
        await _end(self._tasks)
        try:
            if self.checkpoint.loaded:
                await self.checkpoint.save()
        except (SourceError, CheckpointHeldError) as exc:
            log.warning("queue_counts_unsaved", error=str(exc))
        await self.checkpoint.close()
        for client in self._clients:
            await redis.close(client)

    async def collect(self) -> Sequence[Block]:
        """Every queue as it is now.

        Raises:
            SourceError: Redis is away, or lets us read nothing.
            CheckpointHeldError: Another exporter counts under this name.
        """
        for task in self._tasks:
            if task.done():
                task.result()  # a loop ends by nothing but a fault of ours: better no page than one that stands still
        if self._held is not None:
            raise self._held
        if self._blind is not None:
            raise self._blind
        reading = await self._reader.read(list(self.discovery.queues))
        if self._tail.failure is not None:
            raise self._tail.failure  # a queue whose events go by unseen is not watched
        if list(reading.queues) != self._shown:
            self._shown = list(reading.queues)
            self._by_name = {}
            for queue in self._shown:
                self._by_name.setdefault(queue.name, queue)
        self._alike += len(self._shown) - len(self._by_name)
        return self._write([reading.queues[queue] for queue in self._by_name.values()], int(reading.now * 1000))

    def _write(self, states: list[QueueState], now: int) -> list[Block]:
        names, queues = list(self._by_name), self._by_name.values()
        if states != self._states or names != self._names:
            self._states, self._names = states, names
            self._still = self._write_states(dict(zip(names, states, strict=True)))
        ready = {name: state.ready_since for name, state in zip(names, states, strict=True)}
        active = [self._tail.last_activity(queue) for queue in queues]
        values: dict[Metric, Mapping[str, float]] = {
            OLDEST: {name: max(0, now - at) / 1000 for name, at in ready.items() if at is not None},
            LAST_ACTIVITY: {name: at / 1000 for name, at in zip(names, active, strict=True) if at is not None},
        }
        if self._workers is not None:
            workers = self._workers
            values[WORKERS] = {name: workers.get(queue, 0) for name, queue in self._by_name.items()}
        return self._still + [self._families[metric].block(row, row.values()) for metric, row in values.items()]

    def _write_states(self, states: Mapping[str, QueueState]) -> list[Block]:
        """What does not change by itself."""
        values: dict[Metric, Mapping[str, float]] = {
            IS_PAUSED: {name: state.is_paused for name, state in states.items()},
            WORKER_PRESENT: {name: state.worker_present for name, state in states.items()},
            NEXT_DELAYED: {
                name: state.next_delayed for name, state in states.items() if state.next_delayed is not None
            },
        }
        columns = zip(*[state.counts for state in states.values()], strict=True)
        counts = [self._families[metric].block(states, column) for metric, column in zip(STATES, columns, strict=False)]
        return counts + [self._families[metric].block(row, row.values()) for metric, row in values.items()]

    def counts(self) -> Iterable[Part]:
        """What is counted and committed."""
        yield from self.tally.blocks()
        if self.checkpoint.kept:
            yield CHECKPOINT_LAG(self.checkpoint.lag(), exporter=self.checkpoint.name)

    async def _look_around(self) -> None:
        """Find queues and workers, for ever."""
        workers_at = float("-inf")
        while True:
            try:
                pause = await self.discovery.sweep()
                self._blind = None
                if self.checkpoint.loaded:
                    self._jobs.introduce(self.discovery.queues)
                if time.monotonic() - workers_at >= WORKERS_EVERY:
                    self._workers = await attached(self._background, self.discovery.queues)
                    workers_at = time.monotonic()
            except SourceError as exc:
                # Queues once found are read all the same, and the scrape finds out itself whether the server is there.
                self._blind = None if self.discovery.sweeps else exc
                self._workers = None
                pause = RETRY
            await asyncio.sleep(pause)

    async def _save(self) -> None:
        """Load the checkpoint and save into it, for ever."""
        failure = None
        while True:
            try:
                await self.checkpoint.save()
                self._held = failure = None
            except CheckpointHeldError as exc:
                self._held = exc
            except SourceError as exc:
                self._held = None
                if str(exc) != failure:
                    failure = str(exc)
                    log.warning("queue_counts_unsaved", error=failure)
            await asyncio.sleep(SAVE_EVERY)


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they end: before Python 3.12 `asyncio.wait_for`, used by the Redis client, may swallow it."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.05)


def collectors(settings: Settings) -> list[Collector]:
    """The one collector."""
    dsn = settings.ops_dsn
    return [
        Queues(
            settings.reveal("REDIS_URL"),
            prefix=settings.bullmq_prefix,
            checkpoint_name=f"queues/{settings.ops_exporter_name}",
            dsn=None if dsn is None else dsn.get_secret_value(),
        )
    ]


SUBJECT = Subject(
    name="queues",
    title="BullMQ queues",
    needs=("REDIS_URL",),
    metrics=(*GAUGES, *COUNTED),
    collectors="exporters.queues:collectors",
    signals=signals.SIGNALS,
    alerts=signals.ALERTS,
)
