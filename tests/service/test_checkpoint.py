"""Position and counts are saved together, by one exporter at a time, and shown only once saved."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from demo.postgres import PostgresServer
from opslib.checkpoint import Checkpoint
from opslib.contract import migrate
from opslib.errors import CheckpointHeldError, SourceError
from opslib.spec import Counter
from opslib.tally import Tally
from tests.service.ledger_kit import loaded

JOBS = Counter("test_jobs_total", "Jobs.", ("queue",))


def make(dsn: str | None) -> tuple[Checkpoint, Tally]:
    """A checkpoint named `test` and its tally."""
    tally = Tally((JOBS,), durable_only=dsn is not None)
    return Checkpoint("test", dsn, tally), tally


def count(tally: Tally) -> float:
    """What the page shows."""
    return sum(sample.value[0] for sample in tally.samples())


async def saved(database: str) -> tuple[dict[str, Any], float]:
    """Position and count that the next exporter finds."""
    checkpoint, tally = make(database)
    await loaded(checkpoint)
    await checkpoint.close()
    return checkpoint.position, count(tally)


async def test_a_new_exporter_goes_on_where_the_old_one_saved(database: str) -> None:
    """Counts after the last save are not shown and not kept; position and counts belong together."""
    first, tally = make(database)
    await first.load()
    tally.add(JOBS, "a")
    first.move("a", "1-0")
    assert (count(tally), first.lag() > 0) == (0, True)
    await first.save()
    assert (count(tally), first.lag()) == (1, 0)
    tally.add(JOBS, "a")
    first.move("a", "2-0")
    await first.close()  # killed before it could save

    second, again = make(database)
    await loaded(second)
    assert (second.position, count(again)) == ({"a": "1-0"}, 1)
    again.add(JOBS, "a", amount=5)
    second.move("b", "9-0")
    await second.save()
    await second.close()

    third, last = make(database)
    await loaded(third)
    assert (third.position, count(last)) == ({"a": "1-0", "b": "9-0"}, 6)
    await third.close()


async def test_two_exporters_of_one_name_are_refused(database: str) -> None:
    """The second says so and what to do; it may start once the first has gone."""
    first, _ = make(database)
    second, _ = make(database)
    await first.load()
    with pytest.raises(CheckpointHeldError, match="OPS_EXPORTER_NAME"):
        await second.load()
    await first.close()
    await loaded(second)
    await second.close()


async def test_a_lost_connection_goes_on_from_memory(database: str) -> None:
    """What was counted while the store was away is saved when it is back, once."""
    checkpoint, tally = make(database)
    await checkpoint.load()
    tally.add(JOBS, "a")
    checkpoint.move("a", "1-0")
    await checkpoint.save()
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'opsctl test'")
    tally.add(JOBS, "a")
    checkpoint.move("a", "2-0")
    with pytest.raises(SourceError):
        await checkpoint.save()
    assert (count(tally), checkpoint.lag() > 0) == (1, True)
    await checkpoint.save()
    assert (count(tally), checkpoint.lag()) == (2, 0)
    await checkpoint.save()
    assert count(tally) == 2
    await checkpoint.close()
    assert await saved(database) == ({"a": "2-0"}, 2)


async def test_one_that_was_overtaken_gives_up_what_it_had(database: str) -> None:
    """Its unsaved counts are the other's to count: what the other saved is the truth."""
    first, tally = make(database)
    await first.load()
    await first.close()
    other, others = make(database)
    await loaded(other)
    others.add(JOBS, "a", amount=3)
    other.move("a", "3-0")
    await other.save()
    tally.add(JOBS, "a", amount=100)
    first.move("a", "1-0")
    with pytest.raises(CheckpointHeldError):
        await first.save()
    await other.close()
    await loaded(first)
    assert (first.position, count(tally)) == ({"a": "3-0"}, 3)
    await first.close()


async def test_a_frozen_store_makes_the_lag_grow_and_shows_nothing_new(own_postgres: PostgresServer) -> None:
    """SIGSTOP: the save fails at its deadline, the count is kept, and saved after the thaw."""
    dsn = own_postgres.dsn()
    await asyncio.to_thread(migrate.up, dsn)
    checkpoint, tally = make(dsn)
    await checkpoint.load()
    tally.add(JOBS, "a")
    checkpoint.move("a", "1-0")
    checkpoint.move("b", "1-0")
    with own_postgres.paused():
        saving = asyncio.create_task(checkpoint.save())
        await asyncio.sleep(0.2)
        tally.add(JOBS, "a")
        checkpoint.move("a", "2-0")  # while the save of the first is under way
        with pytest.raises(SourceError):
            await saving
        assert count(tally) == 0
        assert checkpoint.lag() > 2
    async with asyncio.timeout(60):
        while checkpoint.lag():
            try:
                await checkpoint.save()
            except SourceError:
                await asyncio.sleep(0.1)
            except CheckpointHeldError:
                # The frozen session still holds the lock until the server notices that we hung up.
                await asyncio.sleep(0.1)
    assert count(tally) == 2
    await checkpoint.close()
    assert await saved(dsn) == ({"a": "2-0", "b": "1-0"}, 2)


async def test_without_a_store_nothing_is_kept_and_everything_shows() -> None:
    """Ordinary counters that begin at zero."""
    checkpoint, tally = make(None)
    await checkpoint.load()
    tally.add(JOBS, "a")
    checkpoint.move("a", "1-0")
    await checkpoint.save()
    assert (count(tally), checkpoint.lag(), checkpoint.kept) == (1, 0, False)


async def test_an_ops_schema_that_is_missing_is_named(app_database: str) -> None:
    """With the command that makes it."""
    checkpoint, _ = make(app_database)
    with pytest.raises(SourceError, match="opsctl migrate up"):
        await checkpoint.load()
    await checkpoint.close()
