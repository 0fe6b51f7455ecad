"""Runs of jobs: queue one, cancel one, look at them. What a worker says goes through `opslib.jobs`.

Every function takes a plain connection to the ops database (`Settings.ops_dsn`), in autocommit or in a transaction of
the caller's. Whoever wants to hear of changes listens on `CHANNEL`: a JSON object with `event` (`queued`, `started`,
`progress`, `cancel`, `completed`), `run`, `job` and `state`; everything else is in `ops_view.job_runs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel

from opslib.areas.queries import NAMED
from opslib.errors import NotFoundError
from opslib.redact import redact

CHANNEL = "ops_jobs"


class State(StrEnum):
    """Where a run stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


def enqueue(
    connection: psycopg.Connection[Any],
    job: str,
    params: BaseModel | None = None,
    *,
    priority: int = 0,
    at: datetime | None = None,
    triggered_by: str,
    foreground: bool = False,
) -> int:
    """Queue a run and return its id.

    Args:
        connection: To the ops database, as a member of ops_jobs or ops_staff.
        job: Its name, as declared by whichever `opsctl jobs run` started last.
        params: Checked parameters; None: the job's defaults.
        priority: Above 0 goes before the scheduled ones.
        at: Not before then; None: now.
        triggered_by: Who asked.
        foreground: Left alone by the workers: the caller runs it itself (`opslib.runner.execute`).

    Raises:
        NotFoundError: No such job is declared.
    """
    plain = params.model_dump(mode="json") if params else {}
    arguments = (job, Jsonb(plain), Jsonb(redact(plain)), priority, at, triggered_by, foreground)
    row = connection.execute("SELECT ops.job_enqueue(%s, %s, %s, %s, %s, %s, %s)", arguments).fetchone()
    if row is None or next(_values(row)) is None:
        raise NotFoundError(
            f"no job {job} is declared; see `opsctl jobs list`, and that `opsctl jobs run` was ever started"
        )
    return int(next(_values(row)))


def cancel(connection: psycopg.Connection[Any], run: int, by: str) -> State:
    """Cancel a queued run at once; ask a running one to stop. Of one that ended nothing changes.

    Returns:
        Its state then; RUNNING: it was asked.

    Raises:
        NotFoundError: No such run.
    """
    row = connection.execute("SELECT ops.job_cancel(%s, %s)", (run, by)).fetchone()
    state = None if row is None else next(_values(row))
    if state is None:
        raise NotFoundError(f"there is no run {run}; see `opsctl jobs history`")
    return State(state)


def declared(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Every declared job, each with when it last ended, and how: `jobs_declared`."""
    return _rows(connection, "jobs_declared", {})


def run(connection: psycopg.Connection[Any], run: int) -> dict[str, Any]:
    """One run, as `ops_view.job_runs` shows it.

    Raises:
        NotFoundError: No such run.
    """
    found = _rows(connection, "run", {"run": run})
    if not found:
        raise NotFoundError(f"there is no run {run}; see `opsctl jobs history`")
    return found[0]


def attempts(connection: psycopg.Connection[Any], run: int) -> list[dict[str, Any]]:
    """Its attempts, the first one first: `run_attempts`."""
    return _rows(connection, "run_attempts", {"run": run})


def active(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Runs that are queued or running, the oldest first: `runs_active`."""
    return _rows(connection, "runs_active", {})


def _rows(connection: psycopg.Connection[Any], name: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(NAMED[name].sql, params).fetchall()


def _values(row: Any) -> Any:
    return iter(row.values() if isinstance(row, Mapping) else row)
