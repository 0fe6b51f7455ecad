"""Facts of each day, written while its rows are still there: what trends are read from when the rows are gone.

A day is written once it is over, again each night while orders and payments of it may still change, and for the last
time once it is `SETTLED` old: from then on it is final, whatever becomes of its rows. Days missed are made up for.

The two databases may be two servers: rows are counted in the application's, facts kept in ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from opslib.areas.queries import NAMED
from opslib.session import Connection

SETTLED = timedelta(days=8)
"""A payment address lives seven days: until then an order can still become paid. No younger row is ever deleted."""

SPAN = 31
"""Days counted by one statement."""

QUERIES = ("facts_orders", "facts_payments", "facts_webhooks", "facts_bounces", "facts_deliveries", "facts_runs")

Fact = tuple[str, str, Decimal]


def write(app: Connection, ops: Connection, tick: Callable[[int, int], None]) -> int:
    """Write every day that is over and not final yet; how many were written.

    Args:
        app: To the application's database.
        ops: To ours.
        tick: Told the days written so far, and of how many.

    Raises:
        psycopg.Error: Some days may be written, each whole.
    """
    today = app.execute("SELECT (now() AT TIME ZONE 'UTC')::date AS day").fetchall()[0]["day"]
    days = _open_days(app, ops, today)
    yesterday = today - timedelta(days=1)
    for done, span in enumerate(days[at : at + SPAN] for at in range(0, len(days), SPAN)):
        facts = _counted(app, ops, span[0], span[-1])
        if span[-1] == yesterday:
            facts.setdefault(yesterday, []).extend(_readings(ops))
        for day in span:
            found = facts.get(day, [])
            ops.execute(
                "SELECT ops.facts_save(%s, %s, %s::text[], %s::text[], %s::numeric[])",
                (day, day <= today - SETTLED, *([fact[n] for fact in found] for n in range(3))),
            )
        tick(done * SPAN + len(span), len(days))
    return len(days)


def final(ops: Connection) -> set[date]:
    """The days whose facts are written for good: only their rows may go."""
    return {row["day"] for row in _written(ops) if row["final"]}


def _written(ops: Connection) -> list[dict[str, Any]]:
    return ops.execute(NAMED["facts_days"].sql).fetchall()


def _open_days(app: Connection, ops: Connection, today: date) -> list[date]:
    """Every day that is over and not final, in order: since the oldest row, or since the first day written."""
    written = _written(ops)
    oldest = (
        app.execute(NAMED["facts_oldest"].sql).fetchall()[0]["day"],
        ops.execute(NAMED["job_runs_oldest"].sql).fetchall()[0]["day"],
        *(row["day"] for row in written),
    )
    first = min([today - timedelta(days=1), *(day for day in oldest if day is not None)])
    done = {row["day"] for row in written if row["final"]}
    return [day for n in range((today - first).days) if (day := first + timedelta(days=n)) not in done]


def _counted(app: Connection, ops: Connection, first: date, last: date) -> dict[date, list[Fact]]:
    since = datetime.combine(first, time(), UTC)
    span = {"since": since, "until": datetime.combine(last, time(), UTC) + timedelta(days=1)}
    found: dict[date, list[Fact]] = {}
    for name in QUERIES:
        query = NAMED[name]
        for row in (app if query.database == "app" else ops).execute(query.sql, span).fetchall():
            found.setdefault(row["day"], []).append((row["subject"], row["key"], row["value"]))
    return found


def _readings(ops: Connection) -> Iterator[Fact]:
    for row in ops.execute(NAMED["facts_readings"].sql).fetchall():
        yield row["subject"], row["key"], row["value"]
