"""Counting rows exactly once: what is in the application's tables, at a cost that does not grow with them.

The rule (docs/decisions/0002): each refresh reads the rows newer than a low-water mark whose outcome is settled, and
adds those not *seen* before, in one transaction with the totals. The mark trails the clock by a horizon longer than any
transaction or late change. A row whose outcome changes after it was counted is a count of its own, never a subtraction.

Once a night the day before is read again, in case a row came later than the horizon after all; then what was seen of
that day is forgotten, and no row of it is ever read again.

History, the rows older than the horizon at the very first start, is added in slices, each committed with its position.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from opslib.areas.queries import NAMED
from opslib.postgres import Database

log = structlog.get_logger()

Row = dict[str, Any]

SLICE = 50_000  # rows of history per statement: some 50 ms, so that nothing of the application ever waits
BACKFILL_SECONDS = 3.0  # of such work per refresh; the rest waits for the next, the database breathes in between
BATCH = 1_000  # rows handed to the ledger per statement
PASS_SECONDS = 30.0
SPAN = timedelta(minutes=30)  # read at once after a long absence: what one statement and our memory carry easily
RECOUNT_SPAN = timedelta(hours=1)
NIGHT = timedelta(hours=3)  # after midnight UTC, when the day before is read again


@dataclass(frozen=True, slots=True)
class Family:
    """Rows of one kind, counted by subject and outcome.

    Attributes:
        name: Its name in the ledger's tables.
        since: Named query: the settled rows from a moment on.
        horizon: How long a row may still appear or change; None takes the ledger's setting.
        history: Named query: totals of a span, for rows older than the horizon at the first start; None begins there.
        slice: Named query: where a slice of history ends; None takes it in one.
        classify: Outcome of a row, where it is more than the row's own.
    """

    name: str
    since: str
    horizon: timedelta | None = None
    history: str | None = None
    slice: str | None = None
    classify: Callable[[Row], str] | None = None


class Ledger:
    """One family's counting.

    Args:
        family: What is counted.
        app: The application's database.
        ops: The database of our own tables.
        horizon: For families without their own.
        settle: An undecided row counts once it is this old.

    Attributes:
        complete: The back-fill has ended.
        missed: Rows that only a recount found.
    """

    def __init__(self, family: Family, app: Database, ops: Database, *, horizon: timedelta, settle: timedelta) -> None:
        self.family = family
        self.complete = False
        self.missed = 0
        self.ops = ops
        self._app = app
        self._horizon = family.horizon or horizon
        self._settle = settle
        self._known: dict[str, str] = {}
        self._passed = 0.0
        self._began: tuple[float, datetime] | None = None  # our own clock and the server's, at the first refresh

    async def open(self) -> None:
        """Make both databases ready to be asked."""
        await self._app.open()
        await self.ops.open()

    async def close(self) -> None:
        """Let go of both."""
        await self._app.close()
        await self.ops.close()

    async def ping(self) -> None:
        """Do both answer right now?

        Raises:
            SourceError: One does not.
        """
        await self._app.ping()
        await self.ops.ping()

    async def refresh(self) -> None:
        """Count what is new.

        Raises:
            SourceError: A database is away; nothing is lost, the next refresh counts it.
        """
        known, self._known = self._known, {}  # forgotten unless all goes well: the table of seen rows is the truth
        now = (await self._app.rows(NAMED["clock"].sql))[0]["now"]
        mark = await self._mark(now)
        if mark["backfilled_at"] is None and not await self._backfill(mark):
            return
        self.complete = True
        horizon = self._steady(now) - self._horizon
        since = await self._catch_up(mark["read_from"], horizon)
        if since + SPAN < horizon:
            return
        rows = await self._read(since, "infinity")
        await self._advance([row for row in rows if known.get(row["id"]) != row["outcome"]])
        if time.monotonic() - self._passed > PASS_SECONDS:
            await self._pass(horizon)
            self._passed = time.monotonic()
        await self._recount(mark, now)
        self._known = {row["id"]: row["outcome"] for row in rows}

    async def _read(self, since: datetime, until: datetime | str) -> list[Row]:
        rows = await self._app.rows(
            NAMED[self.family.since].sql, {"since": since, "settle": self._settle, "until": until}, binary=True
        )
        for row in rows:
            if self.family.classify is not None:
                row["outcome"] = self.family.classify(row)
        return rows

    async def _pass(self, read: datetime) -> None:
        await self.ops.rows("SELECT ops.ledger_pass(%s, %s)", (self.family.name, read))

    async def _catch_up(self, since: datetime, until: datetime) -> datetime:
        """After a long absence, read for a while what came meanwhile, piece by piece; where the rest begins."""
        started = time.monotonic()
        while since + SPAN < until and time.monotonic() - started < BACKFILL_SECONDS:
            await self._advance(await self._read(since, since + SPAN))
            since += SPAN
            await self._pass(since)
        return since

    async def _recount(self, mark: Row, now: datetime) -> None:
        """Once a night read the day before again, for a while per refresh, and forget it hour by hour.

        Exactly once by the same rule as ever: what was seen of an hour is remembered until it was read again, and below
        the mark that is left behind nothing is ever read or counted.
        """
        end = min(self._steady(now) - NIGHT, mark["read_from"]).astimezone(UTC)
        end = end.replace(hour=0, minute=0, second=0, microsecond=0)
        position, started = mark["low_water"], time.monotonic()
        while position < end and time.monotonic() - started < BACKFILL_SECONDS:
            until = min(position + RECOUNT_SPAN, end)
            await self._advance(await self._read(position, until), into="ledger_recount")
            await self.ops.rows("SELECT ops.ledger_purge(%s, %s)", (self.family.name, until))
            position = until
            if position == end:
                log.info("ledger_recounted", family=self.family.name, until=end.isoformat())

    def _steady(self, now: datetime) -> datetime:
        """The server's time, but no further ahead than our own clock went since the first refresh.

        The mark never goes back. Were it to follow a server's clock that is set an hour ahead, then right again, it
        would pass over every row of that hour.
        """
        if self._began is None:
            self._began = (time.monotonic(), now)
        began, then = self._began
        return min(now, then + timedelta(seconds=time.monotonic() - began))

    async def _mark(self, now: datetime) -> Row:
        # The position travels as text: Python has no -infinity among its times.
        found = await self.ops.rows(
            "SELECT low_water, read_from, missed, backfill_from::text, backfilled_at FROM ops.ledger_start(%s, %s)",
            (self.family.name, now - self._horizon),
        )
        self.missed = found[0]["missed"]
        return found[0]

    async def _advance(self, rows: Sequence[Row], into: str = "ledger_advance") -> None:
        for batch in _batches(rows):
            await self.ops.rows(
                # %b: a thousand rows are packed in a third of the time that text takes.
                f"SELECT ops.{into}(%s, %b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::float8[])",
                (self.family.name, *_columns(batch, "id", "subject", "outcome", "created", "amount")),
            )

    async def _backfill(self, mark: Row) -> bool:
        """Add slices of history for a while; True once all is in."""
        position, end, started = mark["backfill_from"], mark["low_water"], time.monotonic()
        while time.monotonic() - started < BACKFILL_SECONDS:
            until = end
            totals: list[Row] = []
            if self.family.slice is not None:
                span = {"since": position, "until": end, "slice": SLICE}
                until = (await self._app.rows(NAMED[self.family.slice].sql, span))[0]["until"] or end
            if self.family.history is not None:
                # The incremental reading begins at the mark itself, so history ends just before it.
                upto = until if until < end else end - timedelta(microseconds=1)
                totals = await self._app.rows(NAMED[self.family.history].sql, {"since": position, "until": upto})
            done = until >= end
            added = await self.ops.rows(
                "SELECT ops.ledger_backfill(%s, %s, %s, %s, %s::text[], %s::text[], %s::bigint[], %s::float8[]) AS ok",
                (
                    *(self.family.name, position, until, done),
                    *_columns(totals, "subject", "outcome", "events", "amount"),
                ),
            )
            if not added[0]["ok"]:
                return False  # another exporter is at it too: look again where it has got to
            log.info("ledger_backfill", family=self.family.name, until=until.isoformat(), done=done)
            if done:
                return True
            position = until.isoformat()
        return False

    async def totals(self) -> list[Row]:
        """What was counted so far, by subject and outcome; empty before the back-fill has ended."""
        return await self.ops.rows(NAMED["ledger_totals"].sql, {"family": self.family.name})

    async def reclassified(self) -> list[Row]:
        """Counted rows whose outcome changed afterwards, by subject, from and to."""
        return await self.ops.rows(NAMED["ledger_reclassified"].sql, {"family": self.family.name})


def _columns(rows: Sequence[Row], *names: str) -> Iterator[list[Any]]:
    return ([row[name] for row in rows] for name in names)


def _batches(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))
