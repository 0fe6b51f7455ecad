"""A hung, stopped or absent Postgres is noticed in time, and coming back needs nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from demo.postgres import PostgresServer
from opslib.errors import SourceError
from opslib.postgres import Database


@pytest.fixture
async def own(own_postgres: PostgresServer) -> AsyncIterator[Database]:
    """A database on a server of this test's own."""
    database = Database(own_postgres.dsn(), application_name="test", size=2)
    await database.open()
    yield database
    await database.close()


async def answers(database: Database, within: float = 15) -> None:
    """Wait until it answers again: five seconds are promised, a busy machine gets ten more."""
    async with asyncio.timeout(within):
        while True:
            try:
                return await database.ping()
            except SourceError:
                await asyncio.sleep(0.1)


async def test_a_frozen_server_is_noticed_within_half_a_second_and_its_return_too(
    own: Database, own_postgres: PostgresServer
) -> None:
    """SIGSTOP leaves sockets open and nobody to enforce a timeout; our deadline holds all the same."""
    await answers(own)
    with own_postgres.paused():
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(SourceError):
                await own.ping()
            assert time.monotonic() - started < 2, "half a second; a busy machine gets more"
    await answers(own)


async def test_a_statement_under_way_is_abandoned_at_its_deadline(own: Database, own_postgres: PostgresServer) -> None:
    """The connection in use when the server froze is severed, not waited for; another one works afterwards."""
    running = asyncio.create_task(own.rows("SELECT pg_sleep(4)", seconds=1))
    await asyncio.sleep(0.3)
    with own_postgres.paused(), pytest.raises(SourceError, match="did not answer within 1 s"):
        await running
    await answers(own)


async def test_a_restarted_server_is_found_again(own: Database, own_postgres: PostgresServer) -> None:
    """Connections broken by the restart are replaced."""
    await answers(own)
    own_postgres.kill()
    with pytest.raises(SourceError):
        await own.ping()
    await asyncio.sleep(1.5)
    own_postgres.start()
    await answers(own)


async def test_an_absent_server_is_an_error_that_says_what_to_do(tmp_path: object) -> None:
    """And it names no password."""
    database = Database(f"host={tmp_path} user=x password=hunter2", application_name="test")
    await database.open()
    with pytest.raises(SourceError, match="check the DSN") as caught:
        await database.rows("SELECT 1")
    assert "hunter2" not in str(caught.value)
    await database.close()


async def test_read_only_is_enforced_by_the_server(app_database: str) -> None:
    """Not by us being careful."""
    database = Database(app_database, application_name="test", read_only=True)
    await database.open()
    with pytest.raises(SourceError, match="read-only"):
        await database.rows("CREATE TABLE x ()")
    await database.close()


@pytest.mark.parametrize(
    ("statement", "advice"),
    [
        ("SELECT ops.ledger_purge('x', now())", "opsctl migrate up"),
        ("SELECT * FROM ops.ledger_totals", "opsctl migrate up"),
        ("SELECT * FROM ops_view.orders", "opsctl contract apply"),
        ("SELECT * FROM orders", "member of ops_exporter"),
    ],
)
async def test_an_incomplete_set_up_is_told_with_the_next_step(app_database: str, statement: str, advice: str) -> None:
    """Not migrated, not applied, or logged in as nobody: the three things a first start gets wrong."""
    with psycopg.connect(app_database, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS nobody_yet")
        admin.execute("CREATE ROLE nobody_yet LOGIN")
    database = Database(make_conninfo(app_database, user="nobody_yet"), application_name="test")
    await database.open()
    with pytest.raises(SourceError, match=advice):
        await database.rows(statement)
    await database.close()
