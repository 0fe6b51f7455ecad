"""The nightly recount: what came later than the horizon is counted once, and published as missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from exporters.ledger import MISSED, Webhooks
from opslib.areas import ledger as module
from opslib.areas.ledger import Ledger
from opslib.areas.queries import NAMED, NamedQuery
from opslib.contract import migrate
from tests.service.ledger_kit import counted, insert, ledger


@pytest.fixture
async def app(database: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A connection of the application's."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        yield connection


def two_days_later(patch: pytest.MonkeyPatch) -> None:
    """The server's clock, as the ledger reads it; rows are stamped today."""
    later = dict(NAMED)
    later["clock"] = NamedQuery("clock", "app", "", "SELECT clock_timestamp() + interval '2 days' AS now")
    patch.setattr(module, "NAMED", later)


async def begin(dsn: str, app: psycopg.AsyncConnection[Any], rows: int) -> None:
    """An exporter that counted so many rows today."""
    async with ledger(dsn, horizon=60) as today:
        for _ in range(rows):
            await insert(app, "ok")
        await today.refresh()
        assert await counted(today) == {"nowpayments/ok": rows}


async def test_a_row_later_than_the_horizon_is_found_at_night_and_once(
    database: str, app: psycopg.AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted, published as missed, and the day is forgotten; a row later than that is never counted."""
    await begin(database, app, rows=3)
    two_days_later(monkeypatch)
    async with ledger(database, horizon=60) as made:
        await made.refresh()
        await insert(app, "error")  # two days late
        for _ in range(3):
            await made.refresh()
            assert await counted(made) == {"nowpayments/ok": 3, "nowpayments/error": 1}
        collector = Webhooks(made, 5, "app/default")
        await collector.collect()
        assert [sample.value for sample in collector.counts() if sample.metric is MISSED] == [(1.0,)]
        cursor = await app.execute("SELECT count(*) FROM ops.ledger_seen")
        assert await cursor.fetchone() == (0,)
        await insert(app, "ok")  # below the mark
        async with ledger(database, horizon=60) as again:
            for one in (made, again):
                await one.refresh()
                assert await counted(one) == {"nowpayments/ok": 3, "nowpayments/error": 1}


async def test_a_recount_cut_short_goes_on_and_two_at_once_count_once(
    database: str, app: psycopg.AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour per refresh, a new exporter each time, two of them side by side."""
    await begin(database, app, rows=20)
    two_days_later(monkeypatch)
    async with ledger(database, horizon=60) as made:
        await made.refresh()
    for _ in range(5):
        await insert(app, "ok")
    monkeypatch.setattr(module, "BACKFILL_SECONDS", 0.001)

    async def once() -> Ledger:
        async with ledger(database, horizon=60) as made:
            await made.refresh()
            return made

    for _ in range(60):
        await asyncio.gather(once(), once())
    async with ledger(database, horizon=60) as made:
        await made.refresh()
        assert (await counted(made), made.missed) == ({"nowpayments/ok": 25}, 5)
        cursor = await app.execute("SELECT low_water FROM ops.ledger_marks")
        found = await cursor.fetchone()
        assert found
        assert found[0].astimezone(UTC).time() == datetime.min.time(), "the day before is done"


async def test_counts_from_before_the_recount_existed_go_on(database: str, app: psycopg.AsyncConnection[Any]) -> None:
    """The migration there and back: nothing that was counted counts again."""
    await begin(database, app, rows=3)
    await asyncio.to_thread(migrate.down, database, 3)
    await asyncio.to_thread(migrate.up, database)
    await insert(app, "error")
    async with ledger(database, horizon=60) as made:
        for _ in range(2):
            await made.refresh()
            assert await counted(made) == {"nowpayments/ok": 3, "nowpayments/error": 1}


async def test_after_a_long_absence_rows_are_read_piece_by_piece(
    database: str, app: psycopg.AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three days of rows, a piece of six hours per refresh: each counts once, none as missed."""
    start = datetime.now(UTC) - timedelta(days=3)
    await app.execute("SELECT ops.ledger_start('webhook', %s)", (start,))
    await app.execute("SELECT ops.ledger_backfill('webhook', '-infinity', %s, true, '{}', '{}', '{}', '{}')", (start,))
    for hour in range(71):
        await insert(app, "ok", age=hour * 3600)
    monkeypatch.setattr(module, "BACKFILL_SECONDS", 0.001)
    monkeypatch.setattr(module, "SPAN", timedelta(hours=6))
    spans = []
    for _ in range(40):
        async with ledger(database) as made:
            await made.refresh()
            spans.append(sum((await counted(made)).values()))
    assert spans[0] <= 14
    assert spans == sorted(spans)
    assert (spans[-1], made.missed) == (71, 0)
