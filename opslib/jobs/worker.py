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
from opslib.jobs.attempt import Attempt, Ending
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
        number: Who we are in the database; None while we are nobody.
        held: Fencing tokens of all we have begun and not ended.
        running: Of these, those that have a process by now.
        lease: Until then, on the monotonic clock, what runs is ours.
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
        self.number: int | None = None
        self.held: set[int] = set()
        self.running: dict[int, Attempt] = {}
        self.lease = 0.0
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

    async def pull(self) -> None:
        """Take work for ever; cancel this to take no more."""
        await self._spawner.start()  # or the first runs would be taken here and wait here
        while True:
            self.wake.clear()
            free = [queue for queue, most in self._queues.items() if self._busy[queue] < most]
            wait: float | None = self._timing.poll
            if free and self.number is not None:
                try:
                    # Shielded: an attempt that was begun must not be lost because we are told to leave right now.
                    self._beginning = asyncio.create_task(self._begin(free))
                    found = await asyncio.shield(self._beginning)
                except GivenUpError:
                    self.number = None  # the keeper makes us somebody again
                    wait = self._timing.retry
                except SourceError:
                    wait = self._timing.retry  # the keeper says it, once
                else:
                    if isinstance(found, Taken):
                        continue
                    wait = self._timing.poll if found is None else max(0.01, min(found, self._timing.poll))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), wait)

    async def _begin(self, queues: list[str]) -> Taken | float | None:
        assert self.number is not None  # noqa: S101 - asked by the caller
        found = await self._store.take(self.number, queues, self._timing.silent_after)
        if isinstance(found, Taken):
            self._busy[found.queue] += 1
            self.held.add(found.attempt)  # before anybody could ask
            task = asyncio.create_task(self.see_through(found))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return found

    async def see_through(self, taken: Taken) -> str | None:
        """Run it and write its outcome down; returns the run's state then, None: what it said was refused."""
        try:
            self._report.started(taken)
            began = time.monotonic()
            ending = await self._run(taken)
            if ending is None:
                if (attempt := self.running.get(taken.attempt)) is not None and attempt.lost:
                    await self._release(taken, "its process was out of touch for too long")
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

    async def _run(self, taken: Taken) -> Ending | None:
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
        attempt = self.running[taken.attempt] = Attempt(taken, child, self._timing)
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
                lease=self.lease,
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

    def drop(self) -> None:
        """Nothing of what runs is ours any more."""
        for attempt in self.running.values():
            attempt.drop()

    async def drain(self, seconds: float) -> None:
        """Wait for what runs; what is not done by then goes back to the queue."""
        self._leaving = True
        if self._beginning is not None:
            await asyncio.wait([self._beginning])
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for attempt in list(self.running.values()):
            await self._release(attempt.taken, _LEAVING)
        if leaving := [asyncio.create_task(attempt.leave()) for attempt in self.running.values()]:
            await asyncio.wait(leaving)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._timing.kill_grace)
        self._spawner.stop()
