"""Make the report of the week that is over, and put it where it is read.

Invariant: as of `daily-report`. After `cleanup` on a Monday, which writes the facts of its last day.
Source: `opslib/report/`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from opslib.report import make
from opslib.report.job import Published, publish
from opslib.run import Run
from opslib.spec import Cron, Job


class Params(BaseModel):
    """Which week."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    day: date | None = Field(None, description="Any day of it, UTC; the week before the slot if it is not given.")


JOB = Job(
    name="weekly-report",
    title="The static report of a week",
    schedule=Cron("30 3 * * 1"),
    max_age=8 * 86_400,
    queue="reports",  # of several hosts the one whose folder is served takes it
    timeout=1800,
    params=Params,
    retries=2,
    retry_after=300,
    needs=("DATABASE_URL", "R2_BUCKET"),  # a folder alone: by hand, or `opsctl jobs enqueue`
)


def run(run: Run, params: Params) -> Published:
    """Make it and put it there.

    Raises:
        ConfigError: No database is set, or no place to put it.
        JobError: One of the places could not be written.
    """
    day = params.day or (run.slot or datetime.now(UTC)).astimezone(UTC).date() - timedelta(days=7)
    return publish(run, lambda tick: make.week(run.settings, make.monday_of(day), tick))
