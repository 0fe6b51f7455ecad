"""Backups on three servers: what is recorded as one is there whole, restores, and what is damaged is found."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pyrage import x25519

from demo.postgres import PostgresServer
from opslib.areas import backup_proofs, backups, pg_tools
from opslib.areas.backups import Kind
from opslib.errors import JobError, OpsError
from opslib.settings import Settings
from opslib.storage import Place
from tests.service import backup_kit
from tests.service.backup_kit import Stage

# urllib3 leaves a connection whose answer was cut off to the collector of garbage.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def source(postgres_server: PostgresServer, ops_template: str) -> Iterator[str]:
    """The database to be backed up."""
    yield from backup_kit.source(postgres_server, ops_template)


@pytest.fixture
def stage(s3: Place, source: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """The three servers in turn."""
    yield from backup_kit.stage(s3, source, monkeypatch)


def test_whole(stage: Stage, source: str) -> None:
    """Written, verified, restored; a second one the same day beside it; rows as the database has them."""
    first = stage.backup()
    manifest = backups.manifest(stage.storage, backups.one(stage.storage))
    rows = {(table.schema_name, table.name): table.rows for table in manifest.tables}
    assert first.key.removeprefix("backups/db/").count("-") == 2
    assert rows["Wei rd.s", 'T "a'] == 77
    assert rows["public", "noise"] == 18_000
    with psycopg.connect(source) as connection:
        for (schema, name), count in rows.items():
            relation = psycopg.sql.Identifier(schema, name)
            found = connection.execute(psycopg.sql.SQL("SELECT count(*) FROM {}").format(relation)).fetchone()
            assert found == (count,) or schema == "ops"  # which a run writes to
    stage.verify()
    assert stage.drill().rows == first.rows
    second = stage.backup()
    assert second.key.startswith(first.key.removesuffix(".sql.gz") + "T")
    assert backups.one(stage.storage).key == second.key
    assert stage.drill(RESTORE_DRILL_DATABASE_URL=make_conninfo(source, dbname="postgres")).key == second.key
    assert len(stage.verify(every=True).verified) == 2
    checks = backups.checks(source)
    assert checks[second.key, Kind.DRILL]["ok"]
    assert checks[second.key, Kind.VERIFY]["ok"]


def test_gunzip_and_psql(stage: Stage, own_postgres: PostgresServer) -> None:
    """Without us: `gunzip -c | psql` into an empty server, without an error and with every row."""
    made = stage.backup()
    with own_postgres.connect() as admin:
        admin.execute("CREATE DATABASE restored TEMPLATE template0")
    plain = subprocess.run(["gunzip", "-c"], input=stage.storage.get(made.key), capture_output=True, check=True).stdout
    psql = pg_tools.choose(18, Settings()).program("psql")
    done = subprocess.run(
        [psql, "-Xq", "-v", "ON_ERROR_STOP=1", own_postgres.dsn("restored")],
        input=plain,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    with own_postgres.connect("restored") as connection:
        assert connection.execute("SELECT count(*) FROM noise").fetchone() == (18_000,)
        owner = connection.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'T \"a'").fetchone()
        assert owner == ("backup_alice",)


def test_least_privilege(stage: Stage, source: str, postgres_server: PostgresServer) -> None:
    """A member of ops_backup dumps everything; a member of ops_jobs does the rest."""
    with postgres_server.connect() as admin:
        admin.execute("CREATE ROLE only_backup LOGIN IN ROLE ops_backup")
        admin.execute("CREATE ROLE only_jobs LOGIN IN ROLE ops_jobs")
    try:
        environment = {
            "BACKUP_DATABASE_URL": make_conninfo(source, user="only_backup"),
            "OPS_DATABASE_URL": make_conninfo(source, user="only_jobs"),
            "DATABASE_URL": make_conninfo(source, user="only_jobs"),
        }
        assert stage.backup(**environment).rows > 18_000
        assert stage.verify(**environment).verified
        assert stage.drill(**environment).tables > 10
    finally:
        with postgres_server.connect() as admin:
            admin.execute("DROP ROLE only_backup, only_jobs")


def test_encrypted(stage: Stage) -> None:
    """Encrypted to two people, opened by one; without identity the digest is proven, a drill refuses."""
    ours, theirs, stranger = (x25519.Identity.generate() for _ in range(3))
    to = {"BACKUP_AGE_RECIPIENTS": f"{ours.to_public()}, {theirs.to_public()}"}
    made = stage.backup(**to)
    assert made.key.endswith(".sql.gz.age")
    assert stage.storage.get(made.key)[:18] == b"age-encryption.org"
    assert stage.verify().verified == [made.key]
    assert stage.verify(BACKUP_AGE_IDENTITY=str(theirs)).verified == [made.key]
    assert stage.drill(BACKUP_AGE_IDENTITY=str(ours)).rows == made.rows
    with pytest.raises(JobError, match="other recipients"):
        stage.verify(BACKUP_AGE_IDENTITY=str(stranger))
    with pytest.raises(JobError, match="set BACKUP_AGE_IDENTITY"):
        stage.drill()
    with pytest.raises(OpsError, match="write age1"):
        stage.backup(BACKUP_AGE_RECIPIENTS="age1nonsense")


def test_password_in_no_argument(stage: Stage, source: str, tmp_path: Path) -> None:
    """What pg_dump and psql are called with holds neither password nor host."""
    real = pg_tools.choose(18, Settings())
    for name in ("pg_dump", "psql"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/argv\nexec {real.program(name)} "$@"\n')
        (tmp_path / name).chmod(0o700)
    dsn = make_conninfo(source, password="hunter2hunter2")
    scratch = make_conninfo(dsn, dbname="postgres")
    both = {"OPS_PG_BIN": str(tmp_path), "BACKUP_DATABASE_URL": dsn, "RESTORE_DRILL_DATABASE_URL": scratch}
    stage.backup(**both)
    stage.drill(**both)
    said = (tmp_path / "argv").read_text()
    assert "--format=plain" in said
    assert "--single-transaction" in said
    assert "hunter2" not in said
    assert "host" not in said


def test_drill_leaves_no_database(stage: Stage, own_postgres: PostgresServer) -> None:
    """A drill that fails on a server of somebody's drops its database; the next one drops what a killed one left."""
    stage.backup()
    place = {"RESTORE_DRILL_DATABASE_URL": own_postgres.dsn()}
    with own_postgres.connect() as admin:
        admin.execute("CREATE DATABASE ops_drill_left_behind")
        admin.execute("CREATE ROLE poor LOGIN CREATEDB")
    poor = make_conninfo(own_postgres.dsn(), user="poor")
    with pytest.raises(JobError, match=r"restore as a superuser|permission denied"):
        stage.drill(RESTORE_DRILL_DATABASE_URL=poor)
    stage.drill(**place)
    with own_postgres.connect() as admin:
        assert admin.execute("SELECT count(*) FROM pg_database WHERE datname LIKE 'ops_drill%'").fetchone() == (0,)


@pytest.mark.timeout(300)
def test_bit_flips(stage: Stage, app_database: str, database: str) -> None:
    """A thousand random single bits of object or manifest: each is found; whole again, it is proven again."""
    environment = {"DATABASE_URL": app_database, "OPS_DATABASE_URL": database}
    made = stage.backup(**environment)
    given = stage.settings(**environment)
    whole = {key: stage.storage.get(key) for key in (made.key, made.key + backups.MANIFEST)}
    chance = random.Random(1_000)
    missed = 0
    for number in range(1_000):
        key = made.key if number % 4 else made.key + backups.MANIFEST
        damaged = bytearray(whole[key])
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        stage.storage.put(key, bytes(damaged))
        backup = backups.one(stage.storage)
        missed += backup_proofs.verify(given, stage.storage, backup, run=0, progress=lambda _: None).ok
        if number == 0:
            with pytest.raises(JobError, match=r"altered|damaged|no manifest"):
                stage.verify(**environment)
        stage.storage.put(key, whole[key])
    assert missed == 0
    assert stage.verify(**environment).verified == [made.key]
    stage.storage.put(made.key, whole[made.key][:-20])
    with pytest.raises(JobError, match="bytes, its manifest says"):
        stage.verify(**environment)


def test_no_backup_is_no_success(stage: Stage) -> None:
    """With nothing in the bucket, verify and drill fail."""
    with pytest.raises(OpsError, match="there is no backup"):
        stage.verify()
    with pytest.raises(OpsError, match="there is no backup"):
        stage.verify(every=True)
    with pytest.raises(OpsError, match="there is no backup"):
        stage.drill()
