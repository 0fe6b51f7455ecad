"""What the ledger costs the application's database: a refresh, the gauges, the first start on a table of five million.

Times are the server's own (planning, execution, writing the rows out), so that the transport and Python are no part
of them. The two tables are asked in turn, because machines drift.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import psycopg
import structlog

from demo import postgres
from demo.processes import private_directory
from exporters.ledger import Webhooks
from opslib.areas.ledger import Ledger
from opslib.areas.queries import NAMED
from opslib.collector import Watch
from opslib.postgres import Database
from tests.bench import sql_peers
from tests.bench.line import Line
from tests.bench.sql_seed import shop

SMALL, LARGE, ORDERS, NEW = 50_000, 5_000_000, 1_000_000, 1_500
ROUNDS = 21
HORIZON = timedelta(minutes=15)

GROUP_BY = """SELECT "webhookType", processed, "signatureValid", count(*) FROM webhook_logs GROUP BY 1, 2, 3"""
"""What every SQL exporter does at each scrape."""

ADVANCE = "SELECT ops.ledger_advance('webhook', %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::float8[])"


def run() -> Iterator[Line]:
    """Two shops on one server of our own."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with private_directory() as directory, postgres.postgres(directory) as server:
        small = shop(server, "small", webhooks=SMALL, orders=1)
        large = shop(server, "large", webhooks=LARGE, orders=ORDERS)
        with psycopg.connect(small, autocommit=True) as few, psycopg.connect(large, autocommit=True) as many:
            yield from _refreshes(few, many, dict(sql_peers.measure(large, directory)))
            yield from _gauges(many)
        yield from asyncio.run(_backfill(large))


def _cost(connection: psycopg.Connection, sql: str, parameters: Any = None) -> float:
    """Milliseconds the server spends on one statement."""
    explain = f"EXPLAIN (ANALYZE, TIMING OFF, SERIALIZE BINARY, FORMAT JSON) {sql}"
    found = connection.execute(explain.encode(), parameters).fetchone()
    assert found
    plan = found[0][0]
    cost: float = plan["Planning Time"] + plan["Execution Time"]
    return cost


@dataclass(slots=True)
class Shop:
    """One table and the newest rows of it."""

    connection: psycopg.Connection
    span: Mapping[str, Any] = field(init=False)
    rows: Sequence[Sequence[Any]] = field(init=False)

    def __post_init__(self) -> None:
        found = self.connection.execute("SELECT max(occurred_at) FROM ops_view.webhook_events").fetchone()
        assert found
        since = found[0] - HORIZON + timedelta(seconds=0.1)
        self.span = {"since": since, "until": "infinity", "settle": timedelta(seconds=60)}
        self.rows = list(zip(*self.connection.execute(NAMED["webhook_since"].sql, self.span).fetchall(), strict=True))
        assert len(self.rows[0]) == NEW, f"{len(self.rows[0])} new rows"
        self.connection.execute("SELECT ops.ledger_start('webhook', %s)", (self.span["since"],))

    def read(self) -> float:
        """The part that grows with the application's table, if anything does."""
        return _cost(self.connection, NAMED["webhook_since"].sql, self.span)

    def count(self) -> float:
        """Every row new: a refresh that has much to do. Taken back afterwards."""
        with self.connection.transaction(force_rollback=True):
            cost = _cost(self.connection, ADVANCE, [list(column) for column in self.rows])
        self.connection.execute("VACUUM ops.ledger_seen, ops.ledger_totals")
        return cost


def _medians(rounds: int, *calls: Callable[[], float]) -> list[float]:
    """Of each, called in turn; the first turn only warms up."""
    turns = [[call() for call in calls] for _ in range(rounds + 1)][1:]
    return [statistics.median(times) for times in zip(*turns, strict=True)]


def _refreshes(few: psycopg.Connection, many: psycopg.Connection, others: Mapping[str, float]) -> Iterator[Line]:
    small, large = Shop(few), Shop(many)
    read, small_read = _medians(ROUNDS, large.read, small.read)
    count, small_count = _medians(ROUNDS, large.count, small.count)
    (peers,) = _medians(3, lambda: _cost(many, GROUP_BY))
    yield Line(f"webhooks, {NEW} new rows of 5 M: read", read, "target", 1, 1)
    yield Line("the same", read, "of 50 k", small_read, 1.5)
    yield Line("the same, read and counted", read + count, "of 50 k", small_read + small_count, 1.5)
    for name, theirs in {"GROUP BY, as the peers": peers, **others}.items():
        yield Line("the same, read", read, name, theirs, 0.01)
        yield Line("the same, read and counted", read + count, name, theirs, 0.02)
    many.execute("DELETE FROM ops.ledger_marks")


def _gauges(many: psycopg.Connection) -> Iterator[Line]:
    for name in ("orders_by_status", "payments_by_status"):
        (cost,) = _medians(5, lambda name=name: _cost(many, NAMED[name].sql))
        yield Line(f"{name}, 1 M rows", cost, "target", 100, 1)


class Timed(Database):
    """Remembers how long each statement took."""

    longest = 0.0

    async def rows(self, sql: str, params: Any = None, **options: Any) -> list[dict[str, Any]]:
        """As its parent's."""
        started = time.perf_counter()
        try:
            return await super().rows(sql, params, **options)
        finally:
            self.longest = max(self.longest, time.perf_counter() - started)


WRITE = """WITH made AS (INSERT INTO webhook_logs ("externalId", "webhookType", payload, "signatureValid", processed)
                       VALUES (gen_random_uuid(), 'nowpayments_ipn', '{}', true, true) RETURNING "orderId")
           UPDATE orders SET "updatedAt" = now() WHERE id = (SELECT id FROM orders OFFSET 7 LIMIT 1)"""


async def _application(dsn: str, took: list[float]) -> None:
    """Goes on writing, some fifty times a second, until it is cancelled."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        while True:
            started = time.perf_counter()
            await connection.execute(WRITE)
            took.append((time.perf_counter() - started) * 1000)
            await asyncio.sleep(0.02)


async def _backfill(dsn: str) -> list[Line]:
    """The first start on five million rows, with the application at work beside it."""
    app, ops = Timed(dsn, application_name="bench", read_only=True), Timed(dsn, application_name="bench")
    ledger = Ledger(Webhooks.family, app, ops, horizon=HORIZON, settle=timedelta(seconds=60))
    watch = Watch(Webhooks(ledger, 5, "app/bench"))
    waits, early, writes = 0, 0, list[float]()
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as observer:
        application = asyncio.create_task(_application(dsn, writes))
        started = time.perf_counter()
        await watch.start()
        while not await watch.ready():
            early += len(await ledger.totals())  # /readyz says no, and nothing is shown
            cursor = await observer.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            found = await cursor.fetchone()
            waits += found[0] if found else 0
            await asyncio.sleep(0.02)
        seconds = time.perf_counter() - started
        application.cancel()
        await asyncio.wait({application})
        await ledger.refresh()
        cursor = await observer.execute("SELECT count(*) FROM webhook_logs")
        there = await cursor.fetchone()
    counted = sum(row["events"] for row in await ledger.totals())
    await watch.stop()
    assert not early, "totals were shown before the back-fill had ended"
    assert there == (counted,), f"{there} rows, {counted} counted"
    return [
        Line("back-fill of 5 M rows, whole", seconds, "target", 120, 1, unit=" s"),
        Line("back-fill, its longest statement", max(app.longest, ops.longest) * 1000, "target", 500, 1),
        Line("back-fill, the application's writes, p99", statistics.quantiles(writes, n=100)[98], "target", 50, 1),
        Line("back-fill, sessions that waited for a lock", waits, "any", 1, 0, unit=""),
    ]
