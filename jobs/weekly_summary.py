"""Monday, 09:00: for each subscriber a job that makes last week's report, and one that mails it.

Invariant: once per user, week and queue, whatever dies on the way and however often it is run.
Source: `ops.weekly_summaries`: begun before a job is added, queued after. In between the job's own id protects it,
which BullMQ knows for longer than a week after the job completed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from pydantic import BaseModel

from opslib.areas import queue_writes
from opslib.areas.queries import NAMED
from opslib.areas.queue_writes import Writer
from opslib.errors import ConfigError
from opslib.run import Run
from opslib.session import Connection, session
from opslib.spec import Cron, Job, NoParams

JOB = Job(
    name="weekly-summary",
    title="Weekly summary to subscribers",
    schedule=Cron("0 9 * * 1"),
    max_age=8 * 86_400,
    timeout=1800,
    retries=3,
    retry_after=60,
    needs=("DATABASE_URL", "REDIS_URL"),
)

KEEP_SECONDS = 8 * 86_400
"""Longer than the week in which the same job might be asked for again."""

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Week:
    """A calendar week, UTC.

    Attributes:
        monday: Its first day.
    """

    monday: date

    @classmethod
    def before(cls, at: datetime) -> Week:
        """The last whole week before that moment."""
        day = at.astimezone(UTC).date()
        return cls(day - timedelta(days=day.weekday() + 7))

    def __str__(self) -> str:
        """ISO 8601: `2026-W47`."""
        year, week, _ = self.monday.isocalendar()
        return f"{year}-W{week:02}"


class Result(BaseModel):
    """What was queued.

    Attributes:
        week: Reported on.
        subscribers: Who may be written to.
        left_out: Named in the setting; unknown, unconfirmed, suspended or leaving.
        queued: Jobs added by this run.
        already: Jobs an earlier run had added.
    """

    week: str
    subscribers: int
    left_out: int
    queued: int
    already: int


def run(run: Run, params: NoParams) -> Result:
    """Queue what is not queued yet.

    Raises:
        ConfigError: A setting is missing, or an id is none.
        RefusedError: A queue has no worker, or is kept by a version of BullMQ we do not know.
        SourceError: A server is away.
    """
    del params
    week = Week.before(run.slot or datetime.now(UTC))
    named = _named(run.settings.ops_weekly_subscribers or "")
    with session(run.settings.reveal("DATABASE_URL"), JOB.name) as connection:
        ids = "{" + ",".join(named) + "}"  # untyped, so that it is whatever the application's ids are
        users = [row["id"] for row in connection.execute(NAMED["weekly_subscribers"].sql, {"ids": ids})]
    with session(run.settings.require_ops(), JOB.name) as connection:
        queued, already = asyncio.run(_queue(run, connection, week, users)) if users else (0, 0)
    return Result(
        week=str(week),
        subscribers=len(users),
        left_out=len(set(named) - set(users)),
        queued=queued,
        already=already,
    )


def _named(text: str) -> list[str]:
    ids = [each.strip() for each in text.split(",") if each.strip()]
    wrong = sum(not _ID.fullmatch(each) for each in ids)
    if wrong:
        raise ConfigError(f"OPS_WEEKLY_SUBSCRIBERS: {wrong} of {len(ids)} are no ids; write ids with commas between")
    return ids


async def _queue(run: Run, connection: Connection, week: Week, users: Sequence[str]) -> tuple[int, int]:
    queues = dict.fromkeys((run.settings.ops_report_queue, run.settings.ops_email_queue))
    queued = already = 0
    async with contextlib.AsyncExitStack() as stack:
        writers: dict[str, Writer] = {}
        for queue in queues:  # both, before anything is written to one
            opened = queue_writes.writer(run.settings.reveal("REDIS_URL"), queue, prefix=run.settings.bullmq_prefix)
            writers[queue] = await stack.enter_async_context(opened)
        for number, user in enumerate(users):
            run.check_cancelled()
            run.progress(number, len(users), unit="users")
            for queue, writer in writers.items():
                added = await _once(connection, writer, week, user, queue)
                queued, already = queued + added, already + (not added)
    return queued, already


async def _once(connection: Connection, writer: Writer, week: Week, user: str, queue: str) -> bool:
    job_id = f"{JOB.name}-{week}-{user}"
    place = {"week": week.monday, "user": user, "queue": queue, "job": job_id}
    begin = "SELECT ops.weekly_begin(%(week)s, %(user)s, %(queue)s, %(job)s) AS open"
    (row,) = connection.execute(begin, place).fetchall()
    if not row["open"]:
        return False
    data = {"userId": user, "week": str(week), "from": str(week.monday), "to": str(week.monday + timedelta(days=7))}
    await writer.add(JOB.name, data, job_id=job_id, keep_seconds=KEEP_SECONDS)
    connection.execute("SELECT ops.weekly_queued(%(week)s, %(user)s, %(queue)s)", place)
    return True
