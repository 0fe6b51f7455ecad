"""The ledger under fire: servers and exporters killed, clocks set, rows late, changed and deleted.

Each time: nothing lost, nothing doubled, no counter stepped back, and an error said while it lasted.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from demo import app_schema
from demo.postgres import PostgresServer
from exporters.ledger import WEBHOOK, Webhooks
from opslib.areas import ledger as module
from opslib.areas.ledger import Ledger
from opslib.areas.queries import NAMED, NamedQuery
from opslib.checkpoint import Checkpoint
from opslib.collector import UP, Watch
from opslib.contract import contract, migrate
from opslib.errors import SourceError
from opslib.spec import Counter
from opslib.tally import Tally
from tests.service.ledger_kit import counted, decide, flow, insert, ledger, loaded, truth

ROOT = Path(__file__).parents[2]
JOBS = Counter("test_jobs_total", "Jobs.", ("queue",))


@pytest.fixture
async def app(database: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A connection of the application's."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        yield connection


@asynccontextmanager
async def flowing(dsn: str, writers: int = 3) -> AsyncIterator[None]:
    """The application writes for the length of the block."""
    ended = asyncio.Event()
    tasks = [asyncio.create_task(flow(dsn, random.Random(seed), ended)) for seed in range(writers)]
    try:
        yield
    finally:
        ended.set()
        await asyncio.gather(*tasks)


def none_stepped_back(before: Mapping[str, int], now: Mapping[str, int]) -> None:
    """A counter only grows."""
    assert {key: count for key, count in before.items() if now.get(key, 0) < count} == {}


async def test_postgres_killed_in_mid_refresh(own_postgres: PostgresServer) -> None:
    """Three times, with rows flowing: the page says it is down, and afterwards every row is in one count."""
    dsn = own_postgres.dsn("shop")
    with own_postgres.connect() as admin:
        admin.execute("CREATE DATABASE shop")
    await asyncio.to_thread(app_schema.create, dsn)
    await asyncio.to_thread(migrate.up, dsn)
    await asyncio.to_thread(contract.apply, dsn)
    last: dict[str, int] = {}
    async with ledger(dsn) as made:
        collector = Webhooks(made, 0.01, "app/default")
        watch = Watch(collector)
        await watch.start()
        async with flowing(dsn), asyncio.timeout(60):
            for _ in range(3):
                await until(lambda: up(watch))
                before, last = last, await counted(made)
                none_stepped_back(before, last)
                await asyncio.to_thread(own_postgres.kill)
                assert not await up(watch)
                await asyncio.to_thread(own_postgres.start)
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            there = await truth(connection)
            await until(lambda: shows(collector, there))
        await watch.stop()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Poll, for twenty seconds at most."""
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - what is polled is in another process
            await asyncio.sleep(0.05)


def shown(collector: Webhooks) -> dict[str, int]:
    """What the page says."""
    return {
        "/".join(sample.labels): int(sample.value[0])
        for sample in collector.counts()
        if sample.metric is WEBHOOK and sample.value[0]
    }


async def shows(collector: Webhooks, there: Mapping[str, int]) -> bool:
    """Is it just that?"""
    return shown(collector) == there


async def busy(watch: Watch, collector: Webhooks, least: int) -> bool:
    """Up, and has it counted so many?"""
    return await up(watch) and sum(shown(collector).values()) >= least


async def up(watch: Watch) -> bool:
    """What the page says about its source."""
    return any(sample.metric is UP and sample.value == (1.0,) for sample in await watch.samples())


async def test_a_transaction_that_commits_three_seconds_late(database: str, app: psycopg.AsyncConnection[Any]) -> None:
    """Rows stamped after it were counted long before it showed."""
    async with (
        ledger(database) as made,
        await psycopg.AsyncConnection.connect(database) as late,
    ):
        await made.refresh()
        await insert(late, "ok", age=3)
        for _ in range(3):
            await insert(app, "ok")
            await made.refresh()
        assert await counted(made) == {"nowpayments/ok": 3}
        await late.commit()
        for _ in range(2):
            await made.refresh()
            assert await counted(made) == {"nowpayments/ok": 4}


@pytest.mark.parametrize(("settle", "expected"), [(60, {"nowpayments/ok": 1}), (2, {"nowpayments/duplicate": 1})])
async def test_a_row_decided_after_thirty_seconds(
    database: str, app: psycopg.AsyncConnection[Any], settle: float, expected: dict[str, int]
) -> None:
    """Before the settle delay it counts once, as what it became; after it, as what it was, and is reclassified once."""
    async with ledger(database, settle=settle) as made:
        row = await insert(app, "undecided")
        await made.refresh()
        assert await counted(made) == {}
        await app.execute('UPDATE webhook_logs SET "createdAt" = "createdAt" - interval \'30 s\'')
        await made.refresh()
        await decide(app, row)
        for _ in range(2):
            await made.refresh()
            assert await counted(made) == expected
        changed = [(each["from_outcome"], each["to_outcome"], each["events"]) for each in await made.reclassified()]
        assert changed == ([] if settle == 60 else [("duplicate", "ok", 1)])


async def test_retention_while_history_is_added(
    database: str, app: psycopg.AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows deleted between two slices, after they were counted, stay counted; the rest is neither lost nor doubled."""
    monkeypatch.setattr(module, "SLICE", 10)
    monkeypatch.setattr(module, "BACKFILL_SECONDS", 0.001)  # a slice each
    for age in range(100):
        await insert(app, "ok", age=100 + age)
    async with ledger(database, horizon=60) as made:
        for _ in range(50):
            if made.complete:
                break
            await made.refresh()
            await app.execute(
                """DELETE FROM webhook_logs WHERE "createdAt" AT TIME ZONE 'UTC' <= (
                       SELECT backfill_from FROM ops.ledger_marks WHERE family = 'webhook')"""
            )
        await made.refresh()
        assert await counted(made) == {"nowpayments/ok": 100}


async def test_rows_dated_ahead_and_behind(database: str, app: psycopg.AsyncConnection[Any]) -> None:
    """The clock that stamps rows jumps by an hour, and back by less than the horizon: each row counts once."""
    async with ledger(database) as made:
        await made.refresh()
        for age in (-3600, 0, 600, -3600, 0):
            await insert(app, "ok", age=age)
            await made.refresh()
        made._passed = -1e9
        await made.refresh()
        async with ledger(database) as again:
            for one in (made, again):
                await one.refresh()
                assert await counted(one) == {"nowpayments/ok": 5}


async def test_the_servers_clock_set_ahead_and_right_again(
    database: str, app: psycopg.AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark does not follow a jump, so the rows written after the clock is right again are not below it."""
    ahead = dict(NAMED)
    ahead["clock"] = NamedQuery("clock", "app", "", "SELECT clock_timestamp() + interval '1 hour' AS now")
    async with ledger(database) as made:
        await insert(app, "ok")
        await made.refresh()
        with monkeypatch.context() as jump:
            jump.setattr(module, "NAMED", ahead)
            await insert(app, "ok", age=-3600)
            made._passed = -1e9  # as if half a minute had passed
            await made.refresh()
        await insert(app, "ok")
        made._passed = -1e9
        await made.refresh()
        assert await counted(made) == {"nowpayments/ok": 3}


EXPORTER = """
import asyncio, sys
from tests.service.ledger_kit import ledger

async def main():
    async with ledger(sys.argv[1]) as made:
        while True:
            await made.refresh()

asyncio.run(main())
"""


async def test_an_exporter_killed_twenty_times(database: str, app: psycopg.AsyncConnection[Any]) -> None:
    """Kill -9 at any moment of a refresh, while rows flow: the next one goes on, and no total steps back."""
    chance, last = random.Random(3), dict[str, int]()
    async with ledger(database) as reader, flowing(database, writers=6):
        for _ in range(20):
            exporter = await asyncio.create_subprocess_exec(sys.executable, "-c", EXPORTER, database, cwd=ROOT)
            try:
                grown = sum(last.values())
                async with asyncio.timeout(60):
                    while grown == sum(last.values()):  # it has started, and is in the middle of it
                        before, last = last, await counted(reader)
                        none_stepped_back(before, last)
                        await asyncio.sleep(0.01)
                await asyncio.sleep(chance.uniform(0, 0.2))
            finally:
                exporter.kill()
                await exporter.wait()
    async with ledger(database) as made:
        await made.refresh()
        there = await truth(app)
        assert await counted(made) == there
    assert sum(there.values()) > 500


async def test_two_ledgers_at_once(
    database: str, app: psycopg.AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first slice of history on, side by side: together they count each row once."""
    monkeypatch.setattr(module, "SLICE", 5)
    for age in range(100):
        await insert(app, "kinguin", age=100 + age)
    async with ledger(database, horizon=60) as one, ledger(database, horizon=60) as two:

        async def run(made: Ledger, ended: asyncio.Event) -> None:
            while not ended.is_set():
                await made.refresh()
                await asyncio.sleep(0.001)

        ended = asyncio.Event()
        both = asyncio.gather(run(one, ended), run(two, ended))
        async with flowing(database):
            await asyncio.sleep(1.5)
        ended.set()
        await both
        await one.refresh()
        await two.refresh()
        assert await counted(one) == await counted(two) == await truth(app)


async def test_the_store_away_for_a_long_stretch_of_traffic(own_postgres: PostgresServer) -> None:
    """Two hundred thousand jobs counted meanwhile take no more room than one; each is saved once it is back."""
    dsn = own_postgres.dsn()
    await asyncio.to_thread(migrate.up, dsn)
    tally = Tally((JOBS,), durable_only=True)
    checkpoint = Checkpoint("test", dsn, tally)
    await checkpoint.load()
    await asyncio.to_thread(own_postgres.kill)
    for number in range(200_000):
        queue = f"queue-{number % 4}"
        tally.add(JOBS, queue)
        checkpoint.move(queue, number)
        if number % 50_000 == 0:
            with pytest.raises(SourceError):
                await checkpoint.save()
            assert tally.samples() == []
            assert checkpoint.lag() > 0
    taken = tally.take()
    assert (len(taken), len(checkpoint.position), len(checkpoint._moved)) == (4, 4, 4), "it grows with the traffic"
    tally.put_back(taken)
    await asyncio.to_thread(own_postgres.start)
    await checkpoint.save()
    assert (sum(sample.value[0] for sample in tally.samples()), checkpoint.lag()) == (200_000, 0)
    await checkpoint.close()
    after = Tally((JOBS,), durable_only=True)
    again = Checkpoint("test", dsn, after)
    await loaded(again)
    assert {sample.labels: sample.value for sample in after.samples()} == {
        (f"queue-{n}",): (50_000.0,) for n in range(4)
    }
    assert again.position == {f"queue-{n}": 199_996 + n for n in range(4)}
    await again.close()


async def test_not_ready_before_history_is_in(
    database: str, app: psycopg.AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/readyz` waits for the back-fill, and no total shows before its end."""
    monkeypatch.setattr(module, "SLICE", 10)
    monkeypatch.setattr(module, "BACKFILL_SECONDS", 0.001)
    for age in range(50):
        await insert(app, "ok", age=100 + age)
    async with ledger(database, horizon=60) as made:
        collector = Webhooks(made, 5, "app/default")
        watch = Watch(collector)
        slices = 0
        while not made.complete:
            await watch._read_within(5)
            if not made.complete:
                slices += 1
                assert not await watch.ready()
                assert list(collector.counts()) == []
        assert (slices >= 4, await watch.ready()) == (True, True)
        assert await counted(made) == {"nowpayments/ok": 50}
