"""The night it is needed: database and objects are destroyed, and come back by following the runbooks to the letter.

With `OPSCTL_REHEARSED=1` in the environment the seconds each step took are written into the pages.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from redis import Redis
from redis.exceptions import NoPermissionError

from demo import app_schema
from demo.postgres import PostgresServer
from demo.redis import RedisServer
from demo.world import world
from opslib import settings
from opslib.areas import pg_tools, runbooks
from opslib.contract import contract, migrate
from opslib.storage import Place, Storage
from tests.acceptance.exporter import Exporter
from tests.acceptance.rehearsal import record

ROOT = Path(__file__).parents[2]
KEYS = 60
Numbers = Mapping[str, object]


def opsctl(environment: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Type a command; nobody sits at a terminal."""
    command = [sys.executable, "-m", "opsctl.cli", *words]
    return subprocess.run(
        command, env=environment, cwd=ROOT, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def done(environment: Mapping[str, str], *words: str) -> str:
    """Type a command that must succeed; what it printed."""
    result = opsctl(environment, *words)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture
def server(own_postgres: PostgresServer) -> PostgresServer:
    """A server that holds the application's database `bitloot`, our schema in it."""
    with own_postgres.connect() as admin:
        admin.execute("CREATE DATABASE bitloot")
    dsn = own_postgres.dsn("bitloot")
    app_schema.create(dsn)
    migrate.up(dsn)
    assert not contract.apply(dsn).findings
    return own_postgres


@pytest.fixture
def bucket(rclone_s3: Place) -> Storage:
    """An empty bucket."""
    storage = Storage(rclone_s3)
    storage.delete_many(one.key for one in storage.list(""))
    return storage


@pytest.fixture
def environment(server: PostgresServer, bucket: Storage) -> dict[str, str]:
    """What a person has exported, the databases apart."""
    tools = pg_tools.choose(18, settings.load({}))
    return {
        "PATH": f"{tools.folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": "/nonexistent",
        "R2_ENDPOINT": bucket.place.endpoint,
        "R2_BUCKET": bucket.bucket,
        "R2_ACCESS_KEY_ID": bucket.place.access_key_id.get_secret_value(),
        "R2_SECRET_ACCESS_KEY": bucket.place.secret_access_key.get_secret_value(),
        "RESTORE_DATABASE_URL": server.dsn("postgres"),
        "LIVE": "bitloot",
        "TARGET": "bitloot_restored",
    }


async def test_disaster(
    server: PostgresServer, environment: dict[str, str], bucket: Storage, redis: str, tmp_path: Path
) -> None:
    """A shop with a past loses database and keys; the pages bring back every row, every number and every object."""
    live = {**environment, "DATABASE_URL": server.dsn("bitloot")}
    async with world(live["DATABASE_URL"], redis, tmp_path) as shop:
        await shop.live_yesterday()
    for number in range(KEYS):
        bucket.put(f"orders/{number:04}/key.txt", f"KEY-{number}".encode() * (number + 1))
    kept = objects(bucket)
    before = numbers(live, tmp_path)
    done(live, "jobs", "exec", "replicate-objects", "--yes", "--reason", "a day before")
    done(live, "jobs", "exec", "backup-database", "--yes", "--reason", "the night before")
    rows = tables(live["DATABASE_URL"])

    with server.connect() as admin:
        admin.execute("DROP DATABASE bitloot WITH (FORCE)")
    bucket.delete_many(one.key for one in bucket.list("orders/"))
    lost = opsctl(live, "orders", "list")
    assert lost.returncode == 5, lost.stderr

    desk = {**environment, "OPS_DATABASE_URL": server.dsn("bitloot_desk")}
    follow("RestoreDatabase", desk)
    assert tables(live["DATABASE_URL"]) == rows
    follow("RestoreObjects", live)
    assert objects(bucket) == kept
    assert numbers(live, tmp_path) == before
    done(desk, "audit", "verify")
    told = done(live, "audit", "list", "--action", "runbook.run", "--json")
    assert "RestoreObjects step 3" in told
    with psycopg.connect(desk["OPS_DATABASE_URL"]) as connection:
        runs = connection.execute("SELECT step, exit_code, who <> '' FROM ops.runbook_runs ORDER BY id").fetchall()
        assert runs == [(1, 0, True), (2, 0, True), (3, 0, True), (4, 0, True)]
        (output,) = connection.execute("SELECT output FROM ops.runbook_runs WHERE step = 2").fetchone() or ("",)
    assert "as in the manifest" in output
    # Once more, onto what is alive again: the database that was live is kept under another name.
    follow("RestoreDatabase", desk, before=False)
    assert tables(live["DATABASE_URL"]) == rows
    with server.connect() as admin:
        old = admin.execute("SELECT count(*) FROM pg_database WHERE datname LIKE 'bitloot_lost_%'").fetchone()
    assert old == (1,)


async def test_lost_redis(database: str, own_redis: RedisServer) -> None:
    """A new Redis gets its two users back, each able to do its part and no more."""
    user, secret = "ops_read", "a&b\\c|1"
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "REDIS_ADMIN_URL": own_redis.tcp_url,
        "READ_PASSWORD": secret,
        "WRITE_PASSWORD": "other",
        "REDIS_URL": own_redis.tcp_url.replace("://", "://ops_write:other@"),
        "DATABASE_URL": database,
    }
    for _ in range(2):
        follow("LostRedis", environment)
        with Redis(unix_socket_path=str(own_redis.socket), username=user, password=secret) as client:
            assert client.exists("bull:q:meta") == 0
            with pytest.raises(NoPermissionError):
                client.set("bull:q:meta", "x")
    with own_redis.client() as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
    refused = opsctl(environment, "runbook", "run", "LostRedis", "--yes", "--reason", "again")
    assert refused.returncode == 1
    assert "step 1 of LostRedis ended with exit code 1" in refused.stderr
    assert secret not in refused.stdout + refused.stderr


def follow(name: str, environment: Mapping[str, str], *, before: bool = True) -> None:
    """Do what the page says: first what is typed by hand, then its steps."""
    book = runbooks.read(name)
    for script in book.before if before else ():
        code, output = runbooks.execute(script, environment, lambda _: None)
        assert code == 0, output
    taken: list[float] = []
    for step in book.chosen(None):
        started = time.monotonic()
        done(environment, "runbook", "run", name, "--step", str(step.number), "--yes", "--reason", "rehearsal")
        taken.append(time.monotonic() - started)
    if before:
        record(name, taken)


def objects(bucket: Storage) -> dict[str, bytes]:
    """Every original with its content."""
    return {one.key: bucket.get(one.key) for one in bucket.list("orders/")}


def tables(dsn: str) -> dict[str, int]:
    """The rows of each table of the application."""
    with psycopg.connect(dsn) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        counted = {
            name: connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name)))
            for (name,) in names
        }
        return {name: (cursor.fetchone() or (0,))[0] for name, cursor in counted.items()}


def numbers(environment: Mapping[str, str], directory: Path) -> Numbers:
    """Every number the ledger's exporter shows, but ages; and the newest orders."""
    known = {key: value for key, value in environment.items() if key == "DATABASE_URL"}
    known |= {"OPS_LEDGER_SETTLE_SECONDS": "1", "OPS_LEDGER_REFRESH_SECONDS": "1", "OPS_LEDGER_GAUGES_SECONDS": "1"}
    with Exporter("ledger", log=directory / "exporter.log", settings=known) as exporter:
        page = exporter.until(lambda page: ("bitloot_orders", (("status", "paid"),)) in page, "the orders")
        time.sleep(3)  # what was counted a moment ago is on the page after the next refresh
        page = exporter.scrape()
    shown = {str(of): number for of, number in page.items() if of[0].startswith("bitloot_") and "age" not in of[0]}
    assert len(shown) > 30
    return {**shown, "orders": done(environment, "orders", "list", "--json", "--limit", "100")}
