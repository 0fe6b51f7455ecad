"""Make the report of the day that is over, and put it where it is read.

Invariant: there is a report for every day, whatever was away when it was made: what could not be read is said on it,
and the day is not green. After `cleanup`, which reads the queues' counters. Source: `opslib/report/`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from opslib.report import make
from opslib.report.job import Published, publish
from opslib.run import Run
from opslib.spec import CatchUp, Cron, Job


class Params(BaseModel):
    """Which day."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    day: date | None = Field(None, description="UTC; the day before the slot if it is not given.")


JOB = Job(
    name="daily-report",
    title="The static report of a day",
    schedule=Cron("0 3 * * *"),
    max_age=26 * 3600,
    queue="reports",  # of several hosts the one whose folder is served takes it
    timeout=1800,
    params=Params,
    retries=2,
    retry_after=300,
    catch_up=CatchUp.ALL,  # each day has its report
    needs=("DATABASE_URL", "R2_BUCKET"),  # a folder alone: by hand, or `opsctl jobs enqueue`
)


def run(run: Run, params: Params) -> Published:
    """Make it and put it there.

    Raises:
        ConfigError: No database is set, or no place to put it.
        JobError: One of the places could not be written.
    """
    day = params.day or (run.slot or datetime.now(UTC)).astimezone(UTC).date() - timedelta(days=1)
    return publish(run, lambda tick: make.day(run.settings, day, tick))
