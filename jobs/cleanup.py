"""Note what each day was, then let go of what is old: expired sessions, and rows that are archived first.

Invariant: no row goes before the facts of its day are final and an object read back from the store holds it, word for
word. The audit is never touched. Sources: `opslib/areas/facts.py`, `opslib/areas/archive.py`; what may be deleted is
decided by the functions of `ops_app` (and of `ops` for our own runs), whatever is asked of them here.
"""

from __future__ import annotations

from datetime import date, timedelta

from pydantic import BaseModel

from opslib.areas import facts
from opslib.areas.archive import Archive, Archived, Source
from opslib.areas.queries import NAMED
from opslib.errors import JobError
from opslib.run import Run
from opslib.session import Connection, session
from opslib.spec import Cron, Job, NoParams
from opslib.storage import Storage

SESSIONS = 5000
"""Sessions deleted by one statement."""
SLOTS = 10_000
"""Slots forgotten by one statement; twenty jobs a minute make three times as many a day."""

JOB = Job(
    name="cleanup",
    title="Daily facts, then expired sessions and old logs",
    schedule=Cron("0 2 * * *"),
    max_age=26 * 3600,
    timeout=4 * 3600,  # a first run writes the facts of years and archives months
    retries=3,
    retry_after=300,
    needs=("DATABASE_URL",),
)


class Result(BaseModel):
    """What was done.

    Attributes:
        days: Days whose facts were written.
        sessions: Expired sessions deleted.
        archived: Rows deleted once they were archived, by source; empty without a bucket, and then all rows stay.
        objects: The archive's objects they are in.
    """

    days: int
    sessions: int
    archived: dict[str, int]
    objects: list[str]


def run(run: Run, params: NoParams) -> Result:
    """Facts first; then sessions; then the archives.

    Raises:
        ConfigError: No database is set.
        JobError: A day's rows could not be let go (see `Archive.move`), or the ledger still counts old rows for the
            first time. Facts and sessions are done by then.
        SourceError: A database or the store failed.
    """
    del params
    with (
        session(run.settings.reveal("DATABASE_URL"), JOB.name, seconds=600) as app,
        session(run.settings.require_ops(), JOB.name, seconds=600) as ops,
    ):
        days = facts.write(app, ops, lambda done, total: _tick(run, "days", f"facts of {done} of {total} days"))
        sessions = _sessions(run, app)
        archived = _archive(run, app, ops) if run.settings.r2_bucket else {}
    return Result(
        days=days,
        sessions=sessions,
        archived={name: moved.rows for name, moved in archived.items()},
        objects=[key for moved in archived.values() for key in moved.keys],
    )


def _sessions(run: Run, app: Connection) -> int:
    purged = 0
    while True:
        batch: int = app.execute("SELECT ops_app.purge_sessions(%s) AS purged", (SESSIONS,)).fetchall()[0]["purged"]
        purged += batch
        _tick(run, "sessions", f"{purged} expired sessions deleted")
        if batch < SESSIONS:
            return purged


def _archive(run: Run, app: Connection, ops: Connection) -> dict[str, Archived]:
    if ops.execute(NAMED["ledger_backfilling"].sql).fetchall():
        raise JobError("the ledger exporter still adds history: no row goes before it has counted it; run this again")
    today: date = app.execute("SELECT (now() AT TIME ZONE 'UTC')::date AS day").fetchall()[0]["day"]
    final = facts.final(ops)
    archive = Archive(Storage.of(run.settings), ops, lambda note: _tick(run, "rows", note))
    webhooks = Source(
        "webhook_logs", app, "webhook_logs_oldest", "ops_app.webhook_log_lines", "ops_app.purge_webhook_logs"
    )
    runs = Source("job_runs", ops, "job_runs_oldest", "ops.job_run_lines", "ops.purge_job_runs")
    oldest_run = today - timedelta(days=run.settings.ops_keep_job_run_days)
    oldest_webhook = today - timedelta(days=run.settings.ops_keep_webhook_log_days)
    moved = {
        "webhook_logs": archive.move(webhooks, oldest_webhook, final.__contains__),
        "job_runs": archive.move(runs, oldest_run, final.__contains__),
    }
    ops.execute("SELECT ops.job_prune(%s, %s)", (oldest_run, SLOTS))  # the slots of those runs
    return moved


def _tick(run: Run, unit: str, note: str) -> None:
    run.progress(unit=unit, note=note)
    run.check_cancelled()
