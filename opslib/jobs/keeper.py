"""What keeps the engine honest: signs of life, attempts watched, those of the dead ended, old runs forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta

import structlog

from opslib.errors import SourceError
from opslib.jobs.attempt import Seat
from opslib.jobs.report import Report
from opslib.jobs.store import Store
from opslib.jobs.timing import Timing
from opslib.jobs.worker import Worker

log = structlog.get_logger()

_BATCH = 1000  # rows pruned at once: each batch is a short transaction


class Keeper:
    """The loops beside the worker.

    Args:
        node: This process's name in the database.
        worker: Whose attempts these are.
        store: The database.
        report: Where failures found here are told.
        timing: Every period.
        queues: What it takes, for people to see.
        scheduler: Does it schedule?
        keep: How long runs are kept.

    Attributes:
        look: Set it when somebody may have been cancelled.
    """

    def __init__(
        self,
        node: str,
        worker: Worker,
        store: Store,
        report: Report,
        timing: Timing,
        *,
        queues: Mapping[str, int],
        scheduler: bool,
        keep: timedelta,
    ) -> None:
        self.look = asyncio.Event()
        self._node = node
        self._queues = queues
        self._scheduler = scheduler
        self._worker = worker
        self._store = store
        self._report = report
        self._timing = timing
        self._keep = keep
        self._contact: float | None = None  # since when Postgres answers, on the monotonic clock

    async def beat(self) -> None:
        """Say that we live, for ever."""
        while True:
            beaten = await self._beat()
            await asyncio.sleep(self._timing.beat if beaten else self._timing.retry)

    async def _beat(self) -> bool:
        now = time.monotonic()
        # From the moment before we ask: whoever calls us silent counts from a later one.
        lease = now + self._timing.worker_silent
        worker = self._worker
        try:
            if (seat := worker.seat) is None:
                number = await self._store.start(self._node, self._queues, scheduler=self._scheduler)
                worker.seat = Seat(number, lease)
                log.info("worker_registered", worker=number, queues=dict(self._queues))
            elif await self._store.beat(seat.number, [n for n, a in worker.running.items() if a.lives()]):
                worker.renew(seat, lease)
            else:
                worker.give_up(seat)
                return False
        except SourceError as exc:
            if self._contact is not None:
                log.error("jobs_database_away", error=str(exc))  # noqa: TRY400 - the message says it all
            self._contact = None
            return False
        if self._contact is None:
            self._contact = now
            worker.wake.set()
        return True

    async def watch(self) -> None:
        """Ask about what runs, for ever: is it still ours, is it cancelled, and how far is it?"""
        while True:
            self.look.clear()
            wait = self._timing.watch
            with contextlib.suppress(SourceError):
                await self._watch()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self.look.wait()

    async def _watch(self) -> None:
        running = dict(self._worker.running)
        if not running:
            return
        for number, (live, cancel) in (await self._store.watch(list(running))).items():
            attempt = running[number]
            if not live and not attempt.dropped:
                attempt.drop()
            elif cancel and not attempt.asked:
                attempt.cancel()
                await self._store.acknowledge(number)
        for number, attempt in running.items():
            if (progress := attempt.progress()) is not None:
                await self._store.progress(number, progress)

    async def reap(self) -> None:
        """End the attempts of the dead, for ever."""
        while True:
            await asyncio.sleep(self._timing.reap)
            with contextlib.suppress(SourceError):
                await self._reap()

    async def _reap(self) -> None:
        worker = self._worker
        while (seat := worker.seat) is not None and self._settled():
            async with worker.asking:
                reaped = await self._store.reap(seat.number, list(worker.held), self._timing.worker_silent)
            if reaped is None:
                return
            log.warning("job_attempt_lost", job=reaped.job, run=reaped.run, state=reaped.state, error=reaped.error)
            self._report.ended(reaped, reaped.state, reaped.error)
        # Not settled: after an outage everybody looks dead until everybody had time to say otherwise.

    def _settled(self) -> bool:
        return self._contact is not None and time.monotonic() - self._contact >= self._timing.settle

    async def prune(self) -> None:
        """Forget old runs, for ever."""
        while True:
            await asyncio.sleep(self._timing.prune)
            before = datetime.now(UTC) - self._keep
            pruned = 0
            with contextlib.suppress(SourceError):
                while count := await self._store.prune(before, _BATCH):
                    pruned += count
                    await asyncio.sleep(0.1)
            if pruned:
                log.info("runs_pruned", runs=pruned, before=before.isoformat())

    def loops(self) -> tuple[Callable[[], Coroutine[None, None, None]], ...]:
        """Everything that must go on all the time."""
        return (self.beat, self.watch, self.reap, self.prune)
