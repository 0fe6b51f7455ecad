"""The worker: takes runs as long as it has room, and sees each through to an outcome that is written down.

Its own loop, not procrastinate's `Worker`: docs/decisions/0005-jobs.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Mapping

import structlog

from opslib.errors import JobError, SourceError
from opslib.jobs.attempt import Attempt, Ending, Seat
from opslib.jobs.child import Assignment
from opslib.jobs.report import Report
from opslib.jobs.spawner import Spawner
from opslib.jobs.store import GivenUpError, Store, Taken
from opslib.jobs.timing import Timing
from opslib.settings import Settings

log = structlog.get_logger()

_LEAVING = "the process that ran it was told to leave"


class Worker:
    """What this process runs at the moment, and how it takes more.

    Args:
        settings: What each job is given.
        targets: The jobs' names and where they are, "module:JOB".
        store: The database.
        report: Where outcomes are told.
        timing: Every period.
        queues: How many at once from each queue.

    Attributes:
        seat: Who we are in the database; None while we are nobody.
        held: Fencing tokens of all we have begun and not ended.
        running: Of these, those that have a process by now.
        asking: Held while a take is on its way: nobody may say then what we never heard of.
        wake: Set it when there may be work.
    """

    def __init__(
        self,
        settings: Settings,
        targets: Mapping[str, str],
        store: Store,
        report: Report,
        timing: Timing,
        *,
        queues: Mapping[str, int],
    ) -> None:
        self.seat: Seat | None = None
        self.held: set[int] = set()
        self.running: dict[int, Attempt] = {}
        self.asking = asyncio.Lock()
        self.wake = asyncio.Event()
        self._settings = settings
        self._targets = targets
        self._queues = queues
        self._store = store
        self._report = report
        self._timing = timing
        self._spawner = Spawner([target.partition(":")[0] for target in targets.values()])
        self._busy: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[str | None]] = set()
        self._beginning: asyncio.Task[Taken | float | None] | None = None
        self._leaving = False
        self._left = False

    async def pull(self) -> None:
        """Take work for ever; cancel this to take no more."""
        await self._spawner.start()  # or the first runs would be taken here and wait here
        while True:
            self.wake.clear()
            free = [queue for queue, most in self._queues.items() if self._busy[queue] < most]
            wait: float | None = self._timing.poll
            if free and (seat := self.seat) is not None:
                try:
                    # Shielded: an attempt that was begun must not be lost because we are told to leave right now.
                    self._beginning = asyncio.create_task(self._begin(seat, free))
                    found = await asyncio.shield(self._beginning)
                except GivenUpError:
                    self.give_up(seat)  # the keeper makes us somebody again
                    wait = self._timing.retry
                except SourceError:
                    wait = self._timing.retry  # the keeper says it, once
                else:
                    if isinstance(found, Taken):
                        continue
                    wait = self._timing.poll if found is None else max(0.01, min(found, self._timing.poll))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):  # not wait_for: that of Python 3.11 may swallow a cancellation
                    await self.wake.wait()

    async def _begin(self, seat: Seat, queues: list[str]) -> Taken | float | None:
        async with self.asking:
            found = await self._store.take(seat.number, queues, self._timing.silent_after)
            if isinstance(found, Taken):
                self.held.add(found.attempt)
        if isinstance(found, Taken):
            self._busy[found.queue] += 1
            task = asyncio.create_task(self.see_through(found, seat))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return found

    async def see_through(self, taken: Taken, seat: Seat) -> str | None:
        """Run what was taken under that seat and write its outcome down.

        Returns:
            The run's state then; None: what it said was refused, or it had nothing to say.
        """
        try:
            self._report.started(taken)
            began = time.monotonic()
            ending = await self._run(taken, seat)
            if ending is None:
                if (attempt := self.running.get(taken.attempt)) is not None and attempt.lost:
                    await self._release(taken, "its process was out of touch for too long")
                elif self._left:
                    await self._release(taken, _LEAVING)
                return None
            if ending.terminated and self._leaving:
                # Whoever told us to leave told our children, too (systemd's KillMode=control-group).
                await self._release(taken, _LEAVING)
                return None
            await self._last_progress(taken)
            state = await self._finish(taken, ending)
            self._tell(taken, ending, state, time.monotonic() - began)
            return state
        finally:
            self.held.discard(taken.attempt)
            self.running.pop(taken.attempt, None)
            self._busy[taken.queue] -= 1
            self.wake.set()

    async def _run(self, taken: Taken, seat: Seat) -> Ending | None:
        target = self._targets.get(taken.job)
        if target is None:
            return Ending("FAILED", error=f"this release has no job {taken.job}: bring every node to the same release")
        try:
            child = await self._spawner.spawn()
        except JobError as exc:
            if self._leaving:
                await self._release(taken, _LEAVING)
                return None
            return Ending("FAILED", error=str(exc))
        if seat.given_up or self._left:
            # It took long, or we were frozen meanwhile: others may have it. (Should they have it without our knowing,
            # the lease is over, and the child does not begin.)
            child.close()
            return None
        attempt = self.running[taken.attempt] = Attempt(taken, seat, child, self._timing)
        return await attempt.run(
            Assignment(
                target=target,
                run=taken.run,
                job=taken.job,
                params=taken.params,
                slot=taken.slot,
                attempt=taken.number,
                triggered_by=taken.triggered_by,
                settings=self._settings,
                beat=self._timing.run_beat,
                lease=seat.lease,
            )
        )

    async def _last_progress(self, taken: Taken) -> None:
        attempt = self.running.get(taken.attempt)
        if attempt is not None and (progress := attempt.progress()) is not None:
            with contextlib.suppress(SourceError):
                await self._store.progress(taken.attempt, progress)

    async def _finish(self, taken: Taken, ending: Ending) -> str | None:
        """However long Postgres is away: the result is there, and the call may be repeated."""
        while True:
            try:
                return await self._store.finish(taken.attempt, ending.outcome, ending.result, ending.error)
            except SourceError:
                await asyncio.sleep(self._timing.retry)

    def _tell(self, taken: Taken, ending: Ending, state: str | None, seconds: float) -> None:
        told = log.bind(job=taken.job, run=taken.run, attempt=taken.number, seconds=round(seconds, 3))
        if state is None:
            told.warning("job_result_refused", outcome=ending.outcome)
            return
        if ending.outcome == "FAILED":
            told.error("job_failed", error=ending.error, state=state)
        else:
            told.info("job_ended", outcome=ending.outcome, error=ending.error)
        if ending.timed_out:
            self._report.count(taken.job, "attempt_timeout")
        self._report.ended(taken, state, ending.error, ending.trace)

    async def _release(self, taken: Taken, why: str) -> None:
        with contextlib.suppress(SourceError):  # then it is found out by our silence
            await self._store.release(taken.attempt, why)

    def renew(self, seat: Seat, lease: float) -> None:
        """What was taken under it is ours until then, on the monotonic clock."""
        seat.lease = lease
        for attempt in self.running.values():
            if attempt.seat is seat and not attempt.dropped:
                attempt.lease(lease)

    def give_up(self, seat: Seat) -> None:
        """Nothing that was taken under it is ours any more: end what runs; what is on its way does not begin."""
        if seat.given_up:
            return
        seat.given_up = True
        self.seat = None
        lost = [attempt for attempt in self.running.values() if attempt.seat is seat]
        log.warning("worker_given_up", worker=seat.number, running=len(lost))
        for attempt in lost:
            attempt.drop()

    async def drain(self, seconds: float) -> None:
        """Wait for what runs; what is not done by then is ended, and goes back to the queue."""
        self._leaving = True
        if self._beginning is not None:
            await asyncio.wait([self._beginning])
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        # Ended first, then given back: whoever takes it next must not meet it.
        self._left = True
        if leaving := [asyncio.create_task(attempt.leave()) for attempt in self.running.values()]:
            await asyncio.wait(leaving)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._timing.kill_grace)
        self._spawner.stop()
