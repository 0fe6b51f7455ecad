"""What ran: the history a page at a time, and what it says about each job.

A page ends with a run; the next one begins before it (`before`). Unlike an offset that costs the same on every page,
and runs that come in meanwhile shift nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from opslib.areas.queries import NAMED
from opslib.areas.runs import State

Row = dict[str, Any]

PAGE = 100
"""Runs in a page at most."""

COLUMNS = (
    "id",
    "job",
    "state",
    "slot",
    "queued",
    "started",
    "finished",
    "queue_delay",
    "duration",
    "attempt",
    "heartbeat",
    "node",
    "queue",
    "priority",
    "due",
    "retry_at",
    "triggered_by",
    "cancel_requested_by",
    "cancel_requested",
    "cancel_acknowledged",
    "parameters",
    "progress",
    "result",
    "error",
)
"""Of `ops_view.job_runs`, what a reader wants: `outcome` is for filters."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs; None: whichever.

    Attributes:
        job: Of this job.
        state: In this state.
        by: Triggered by this person, or `schedule`.
        since: Queued then or later.
        until: Queued before.
        before: Numbered below: where the page before ended.
    """

    job: str | None = None
    state: State | None = None
    by: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some runs.

    Attributes:
        rows: Newest first.
        next: What to ask for as `before`; None when there are no more.
    """

    rows: Sequence[Row]
    next: int | None


def page(connection: psycopg.Connection[Any], wanted: Filter, limit: int = PAGE) -> Page:
    """The newest runs that fit, `limit` of them at most."""
    given = {name: value for name, value in asdict(wanted).items() if value is not None}
    query = NAMED["runs_history" if wanted.state is None else "runs_history_of_state"]
    rows = _rows(connection, query.asking(given), {**given, "limit": limit + 1})
    shown = rows[:limit]
    return Page(shown, shown[-1]["id"] if len(rows) > limit else None)


def stats(connection: psycopg.Connection[Any]) -> list[Row]:
    """Each job's runs as far back as they are kept: how many in each state, how long they took, how many succeeded."""
    return _rows(connection, NAMED["runs_stats"].sql, {})


def _rows(connection: psycopg.Connection[Any], sql: str, params: dict[str, Any]) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        # Never prepared: a plan that does not know the values may read the whole table for a rare one.
        rows = cursor.execute(sql, params, prepare=False).fetchall()
    return [{name: value for name, value in row.items() if name != "outcome"} for row in rows]
