"""Every settled row in exactly one count: late commits, changed rows, restarts, history, retention."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from opslib.areas import ledger as module
from opslib.areas.ledger import Family, Ledger
from opslib.areas.queries import NAMED
from opslib.contract import contract
from opslib.errors import SourceError
from opslib.postgres import Database
from tests.service.ledger_kit import ROWS, WEBHOOK, counted, decide, insert

BOUNCE = Family("bounce", since="bounce_since", history="bounce_history")
UNDERPAID = Family("underpaid", since="underpaid_since", history="underpaid_history", horizon=timedelta(days=7))


@pytest.fixture
async def app(database: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A connection of the application's."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def make(database: str) -> AsyncIterator[Callable[..., Ledger]]:
    """Ledgers as one exporter after the other would make them; each call forgets what the last one held in memory."""
    reader = Database(database, application_name="test", read_only=True)
    writer = Database(database, application_name="test")
    await reader.open()
    await writer.open()

    def new(family: Family = WEBHOOK, horizon: float = 900, settle: float = 1) -> Ledger:
        return Ledger(family, reader, writer, horizon=timedelta(seconds=horizon), settle=timedelta(seconds=settle))

    yield new
    await reader.close()
    await writer.close()


async def test_each_kind_once_and_the_undecided_only_when_settled(
    app: psycopg.AsyncConnection[Any], make: Callable[..., Ledger]
) -> None:
    """A second refresh, and a second exporter, add nothing."""
    for kind in ROWS:
        await insert(app, kind)
    ledger = make()
    for _ in range(2):
        await ledger.refresh()
        assert await counted(ledger) == {
            "nowpayments/ok": 1,
            "nowpayments/invalid": 1,
            "nowpayments/error": 1,
            "kinguin/ok": 1,
            "other/ok": 1,
        }
    await asyncio.sleep(1.2)
    for again in (ledger, ledger, make()):
        await again.refresh()
        assert (await counted(again))["nowpayments/duplicate"] == 1
        assert sum((await counted(again)).values()) == 6


async def test_a_row_decided_after_it_was_counted_is_reclassified_once(
    app: psycopg.AsyncConnection[Any], make: Callable[..., Ledger]
) -> None:
    """The first count stays; the change is a count of its own."""
    row = await insert(app, "undecided", age=5)
    ledger = make()
    await ledger.refresh()
    await decide(app, row)
    for again in (ledger, ledger, make()):
        await again.refresh()
        assert await counted(again) == {"nowpayments/duplicate": 1}
        assert [(r["from_outcome"], r["to_outcome"], r["events"]) for r in await again.reclassified()] == [
            ("duplicate", "ok", 1)
        ]


async def test_none_is_lost_under_late_commits_changes_and_restarts(database: str, make: Callable[..., Ledger]) -> None:
    """Transactions open for up to a second and a half, rows decided late, a new exporter every few refreshes."""
    chance = random.Random(7)
    kinds = ["ok", "ok", "invalid", "error", "kinguin"]

    async def writer(number: int) -> dict[str, int]:
        wrote: dict[str, int] = {}
        async with await psycopg.AsyncConnection.connect(database) as connection:
            for _ in range(12):
                kind = chance.choice(kinds)
                await insert(connection, kind)
                await asyncio.sleep(chance.uniform(0, 1.5 if number < 3 else 0.1))
                await connection.commit()
                key = "kinguin/ok" if kind == "kinguin" else f"nowpayments/{kind}"
                wrote[key] = wrote.get(key, 0) + 1
        return wrote

    writers = [asyncio.create_task(writer(number)) for number in range(6)]
    ledger = make()
    last: dict[str, int] = {}
    while not all(task.done() for task in writers):
        await ledger.refresh()
        now = await counted(ledger)
        assert all(now[key] >= count for key, count in last.items()), "a counter stepped back"
        last = now
        if chance.random() < 0.2:
            ledger = make()
        await asyncio.sleep(0.05)
    await ledger.refresh()
    expected: dict[str, int] = {}
    for task in writers:
        for key, count in task.result().items():
            expected[key] = expected.get(key, 0) + count
    assert await counted(ledger) == expected


async def test_history_is_added_in_slices_and_shown_when_complete(
    app: psycopg.AsyncConnection[Any], make: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two slices it goes on where it was; nothing shows before the end; the seam counts once."""
    for age in range(60):
        await insert(app, "ok", age=age)
        await insert(app, "kinguin", age=age)
    monkeypatch.setattr(module, "SLICE", 7)
    monkeypatch.setattr(module, "BACKFILL_SECONDS", 0.0)
    ledger = make(horizon=30)
    await ledger.refresh()
    assert not ledger.complete, "no time for a single slice"
    assert await counted(ledger) == {}
    monkeypatch.setattr(module, "BACKFILL_SECONDS", 0.001)
    for _ in range(100):
        ledger = make(horizon=30)
        await ledger.refresh()
        if ledger.complete:
            break
        assert await counted(ledger) == {}
    for _ in range(2):
        await ledger.refresh()
        assert await counted(ledger) == {"nowpayments/ok": 60, "kinguin/ok": 60}


async def test_an_exporter_away_for_longer_than_the_horizon_misses_nothing(
    app: psycopg.AsyncConnection[Any], make: Callable[..., Ledger]
) -> None:
    """The mark moves only with a successful refresh."""
    ledger = make(horizon=1)
    await insert(app, "ok")
    await ledger.refresh()
    await insert(app, "ok")
    await asyncio.sleep(1.5)
    for again in (make(horizon=1), make(horizon=1)):
        await again.refresh()
        assert await counted(again) == {"nowpayments/ok": 2}


async def test_rows_deleted_by_retention_stay_counted(
    app: psycopg.AsyncConnection[Any], make: Callable[..., Ledger]
) -> None:
    """A counter counts what happened, not what is still there."""
    await insert(app, "ok")
    ledger = make()
    await ledger.refresh()
    await app.execute("DELETE FROM webhook_logs")
    for again in (ledger, make()):
        await again.refresh()
        assert await counted(again) == {"nowpayments/ok": 1}


async def test_orders_underpaid_and_bounces_are_counted_once_each(
    app: psycopg.AsyncConnection[Any], make: Callable[..., Ledger]
) -> None:
    """An order that becomes underpaid days after it was created counts; one that stays so does not count again."""
    cursor = await app.execute(
        """INSERT INTO orders (email, status, "sourceType", "totalCrypto", "createdAt")
           SELECT 'a@example.com', s, 'custom', 1, now() - age
           FROM (VALUES ('underpaid', interval '30 days'), ('underpaid', '1 hour'), ('waiting', '3 days')) v (s, age)
           RETURNING id, status"""
    )
    waiting = [row[0] for row in await cursor.fetchall() if row[1] == "waiting"]
    await app.execute(
        """INSERT INTO email_bounces (email, type, "bouncedAt", "createdAt")
           SELECT 'a@example.com', t::email_bounces_type_enum, now(), now() - age
           FROM (VALUES ('hard', interval '30 days'), ('hard', '1 second'), ('soft', '0')) v (t, age)"""
    )
    orders, bounces = make(UNDERPAID), make(BOUNCE)
    for _ in range(2):
        await orders.refresh()
        await bounces.refresh()
        assert await counted(orders) == {"/underpaid": 2}
        assert await counted(bounces) == {"/hard": 2, "/soft": 1}
    await app.execute("UPDATE orders SET status = 'underpaid' WHERE id = ANY(%s)", (waiting,))
    for again in (orders, make(UNDERPAID)):
        await again.refresh()
        assert await counted(again) == {"/underpaid": 3}


async def test_while_the_contract_is_suspended_nothing_is_lost(
    app: psycopg.AsyncConnection[Any], database: str, make: Callable[..., Ledger]
) -> None:
    """The views are gone: an error that says so; what came meanwhile is counted afterwards."""
    ledger = make()
    await insert(app, "ok")
    await ledger.refresh()
    await asyncio.to_thread(contract.suspend, database)
    await insert(app, "ok")
    with pytest.raises(SourceError, match="webhook_events"):
        await ledger.refresh()
    assert await counted(ledger) == {"nowpayments/ok": 1}
    await asyncio.to_thread(contract.apply, database)
    await ledger.refresh()
    assert await counted(ledger) == {"nowpayments/ok": 2}


def test_every_query_of_the_ledger_exists() -> None:
    """A family names queries that are there."""
    for family in (WEBHOOK, BOUNCE, UNDERPAID):
        for name in (family.since, family.history, family.slice):
            assert name is None or name in NAMED
