"""The scheduler: APScheduler says when to look, the database what is due. So no tick is worth anything by itself.

Each look decides every slot from the last one decided to now. A tick that comes late, twice, on three hosts at once
or not at all changes nothing but the moment: `ops.job_decide` records each slot once, with its run, in one transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from datetime import UTC, timedelta
from itertools import islice

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from opslib.errors import SourceError
from opslib.jobs import schedule
from opslib.jobs.report import Report
from opslib.jobs.store import Store
from opslib.jobs.timing import Timing
from opslib.spec import CatchUp, Job

log = structlog.get_logger()

_EVENTS = {
    EVENT_JOB_MISSED: "tick_missed",
    EVENT_JOB_ERROR: "tick_error",
    EVENT_JOB_MAX_INSTANCES: "tick_max_instances",
}
_CHUNK = 1000  # slots decided in one transaction


class Scheduler:
    """Ticks for the jobs that have a schedule and their settings.

    Args:
        jobs: By name.
        store: The database.
        report: Where what APScheduler dropped is counted.
        timing: Every period.
    """

    def __init__(self, jobs: Mapping[str, Job], store: Store, report: Report, timing: Timing) -> None:
        self._jobs = jobs
        self._store = store
        self._report = report
        self._timing = timing
        self._ticks = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": max(1, round(timing.misfire))},
        )
        self._ticks.add_listener(self._dropped, EVENT_JOB_MISSED | EVENT_JOB_ERROR | EVENT_JOB_MAX_INSTANCES)
        for name, job in jobs.items():
            if job.schedule is not None:
                self._ticks.add_job(self.look, schedule.trigger(job.schedule), args=[[name]], id=name)

    async def run(self) -> None:
        """Tick, and look without a tick now and then, for ever."""
        self._ticks.start()
        try:
            while True:
                with contextlib.suppress(SourceError):
                    await self.look(self._jobs)
                await asyncio.sleep(self._timing.sweep)
        finally:
            self._ticks.shutdown(wait=False)

    async def look(self, names: Iterable[str]) -> None:
        """Decide every slot of these jobs that is due.

        Raises:
            SourceError: The database is away; the next look finds the same slots.
        """
        last_slots = await self._store.last_slots()
        for name in names:
            if name not in last_slots:
                continue  # retired by a newer release
            job = self._jobs[name]
            assert job.schedule is not None  # noqa: S101 - the database lists scheduled ones only
            last, now = last_slots[name]
            while due := list(islice(schedule.slots(job.schedule, last, now), _CHUNK)):
                skipped = schedule.skipped(due, job.catch_up, now, timedelta(seconds=self._timing.misfire))
                if len(due) == _CHUNK and job.catch_up is not CatchUp.ALL:
                    skipped[-1] = True  # there are newer ones
                await self._store.decide(name, due, skipped)
                if any(skipped):
                    log.warning("slots_skipped", job=name, slots=sum(skipped), catch_up=str(job.catch_up))
                last = due[-1]

    def _dropped(self, event: JobEvent) -> None:
        name = _EVENTS[event.code]
        self._report.count(event.job_id, name)
        log.warning("tick_dropped", job=event.job_id, event=name)
