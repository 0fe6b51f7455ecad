"""What the world is told about runs: Sentry's check-ins and failures, and counts that only a process can see."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from opslib import sentry
from opslib.errors import SourceError
from opslib.jobs.store import Reaped, Store, Taken
from opslib.spec import Cron, Every, Job

_MARGIN_MINUTES = 5  # how late a check-in may be: longer than a dead node's work takes to be taken over


class Report:
    """Tells, and never stands in the way of what it tells about.

    Args:
        jobs: By name; one that is not scheduled has no monitor.
        store: Where counts go.
        environment: Sentry's, so that two of them do not share check-ins.
    """

    def __init__(self, jobs: Mapping[str, Job], store: Store, environment: str) -> None:
        self._jobs = jobs
        self._store = store
        self._environment = environment
        self._counts: Counter[tuple[str, str]] = Counter()

    def started(self, taken: Taken) -> None:
        """The first attempt of a slot begins: its monitor expects an end from now on."""
        if taken.slot is not None and taken.number == 1:
            self._check_in(taken.job, taken.run, taken.slot, "in_progress")

    def ended(self, which: Taken | Reaped, state: str, error: str | None, trace: Sequence[str] = ()) -> None:
        """A run came to `state`; one that will be tried again has not ended."""
        if state == "QUEUED":
            return
        if which.slot is not None:
            self._check_in(which.job, which.run, which.slot, "ok" if state == "SUCCESS" else "error")
        if state == "FAILED":
            sentry.job_failed(which.job, which.run, error or "it failed", trace)

    def count(self, job: str, event: str) -> None:
        """Count an event; it is written soon."""
        self._counts[job, event] += 1

    async def write(self, seconds: float) -> None:
        """Write what was counted, for ever."""
        while True:
            await asyncio.sleep(seconds)
            await self.flush()

    async def flush(self) -> None:
        """Write what was counted so far; what cannot be written is kept."""
        with contextlib.suppress(SourceError):
            for (job, event), count in list(self._counts.items()):
                await self._store.count(job, event, count)
                self._counts[job, event] -= count
                if not self._counts[job, event]:
                    del self._counts[job, event]

    def _check_in(self, job: str, run: int, slot: datetime, status: str) -> None:
        spec = self._jobs.get(job)
        if spec is None or spec.schedule is None:
            return
        # Whoever ends the run, on whichever host, closes the check-in that its beginning opened.
        number = uuid5(NAMESPACE_URL, f"{self._environment}/{job}/{run}/{slot.isoformat()}").hex
        sentry.check_in(job, number, status, monitor(spec.schedule, spec.timeout))


def monitor(schedule: Cron | Every, timeout: float) -> dict[str, object]:
    """Sentry's description of a schedule; it knows no period below a minute."""
    when: dict[str, object]
    match schedule:
        case Cron(expression):
            when = {"type": "crontab", "value": expression}
        case Every(seconds):
            when = {"type": "interval", "value": max(1, math.ceil(seconds / 60)), "unit": "minute"}
    return {
        "schedule": when,
        "timezone": "UTC",
        "checkin_margin": _MARGIN_MINUTES,
        "max_runtime": max(1, math.ceil(timeout / 60)) + _MARGIN_MINUTES,
    }
