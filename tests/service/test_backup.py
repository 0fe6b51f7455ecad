"""Backups on three servers: what is recorded as one is there whole, what is damaged is found, what broke left nothing.

Each fault is followed by an undisturbed run, after which exactly one more backup is there, proven, and nothing dangles.
"""

from __future__ import annotations

import dataclasses
import os
import random
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pyrage import x25519

from demo.postgres import PostgresServer
from jobs import backup_database, restore_drill, retention, verify_backup
from opslib import settings, storage_upload
from opslib.areas import backup_proofs, backups, pg_tools
from opslib.areas import retention as rules
from opslib.areas.backups import Kind
from opslib.errors import CancelledError, JobError, OpsError, SourceError, StorageError
from opslib.run import Progress, Run
from opslib.settings import Settings
from opslib.spec import NoParams
from opslib.storage import Place, Storage
from tests.service import s3_kit
from tests.service.faulty_proxy import FaultyProxy, faulty_proxy

# urllib3 leaves a connection whose answer was cut off to the collector of garbage.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")

SOURCE = "backup_source"
PART = 5 * 1024 * 1024  # the least R2 takes, so that a small database makes several


@pytest.fixture(scope="module")
def source(postgres_server: PostgresServer, ops_template: str) -> Iterator[str]:
    """A database whose dump takes three parts: rows that hardly compress, names and values that look like the dump."""
    with postgres_server.connect() as admin:
        admin.execute(f"CREATE DATABASE {SOURCE} TEMPLATE {ops_template}")
    with postgres_server.connect(SOURCE) as connection:
        connection.execute("CREATE ROLE backup_alice")
        connection.execute('CREATE SCHEMA "Wei rd.s"')
        connection.execute('CREATE TABLE "Wei rd.s"."T ""a" (line text, n int)')
        connection.execute('ALTER TABLE "Wei rd.s"."T ""a" OWNER TO backup_alice')
        hostile = "\n\\.\n\n\n\n-- Data for Name: x; Type: TABLE DATA\n--\n\nCOPY public.y (a) FROM stdin;\n"
        connection.execute('INSERT INTO "Wei rd.s"."T ""a" SELECT %s || n, n FROM generate_series(1, 77) n', (hostile,))
        connection.execute("CREATE TABLE noise (n int, line text)")
        connection.execute(
            """INSERT INTO noise
               SELECT n, (SELECT string_agg(md5(n || '/' || m), '') FROM generate_series(1, 40) m)
               FROM generate_series(1, 18000) n"""
        )
    yield postgres_server.dsn(SOURCE)
    with postgres_server.connect() as admin:
        admin.execute(f"DROP DATABASE {SOURCE} WITH (FORCE)")


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_upload, "PART_BYTES", PART)


class Stage:
    """One bucket behind a proxy, one database, and runs of the jobs."""

    def __init__(self, place: Place, proxy: FaultyProxy, source: str) -> None:
        self.place = place
        self.proxy = proxy
        self.storage = Storage(place)
        self.environment = {
            "DATABASE_URL": source,
            "R2_ENDPOINT": proxy.endpoint,
            "R2_BUCKET": place.bucket,
            "R2_ACCESS_KEY_ID": place.access_key_id.get_secret_value(),
            "R2_SECRET_ACCESS_KEY": place.secret_access_key.get_secret_value(),
        }

    def settings(self, **more: str) -> Settings:
        """What a run is given."""
        return settings.load({**self.environment, **more})

    def run(self, job: str, *, cancelled: Callable[[], bool] = lambda: False, **more: str) -> Run:
        """A run of that job."""
        seen: list[Progress] = []
        return Run(7, job, self.settings(**more), None, 1, "test", seen.append, cancelled)

    def backup(self, **more: str) -> backup_database.Result:
        """Back up."""
        return backup_database.run(self.run("backup-database", **more), NoParams())

    def verify(self, *, every: bool = False, **more: str) -> verify_backup.Result:
        """Verify the newest, or all."""
        return verify_backup.run(self.run("verify-backup", **more), verify_backup.Params(every=every))

    def drill(self, **more: str) -> restore_drill.Result:
        """Restore the newest and compare."""
        return restore_drill.run(self.run("restore-drill", **more), NoParams())

    def calm(self) -> None:
        """No more faults."""
        self.proxy.rule = lambda _method, _target: None
        self.proxy.before = lambda _method, _target: None

    def proven_after(self, before: int) -> None:
        """An undisturbed run makes one more backup, which is proven with every other, and nothing dangles."""
        self.calm()
        self.backup()
        found = backups.listing(self.storage)
        assert len(found) == before + 1
        assert all(one.has_manifest for one in found)
        assert self.verify(every=True).verified == [one.key for one in found]
        assert len(self.storage.list("")) == 2 * len(found)
        assert self.storage.pending("") == ()


@pytest.fixture
def stage(s3: Place, source: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """The three servers in turn; a request fails after a second of silence and is made twice."""
    place = Storage.of.__func__  # type: ignore[attr-defined]

    def hasty(kind: type[Storage], given: Settings) -> Storage:
        made: Storage = place(kind, given)
        return kind(dataclasses.replace(made.place, region=s3.region), timeout=1, attempts=2)

    monkeypatch.setattr(Storage, "of", classmethod(hasty))
    with faulty_proxy(s3.endpoint) as proxy:
        yield Stage(s3, proxy, source)


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


@pytest.mark.parametrize("share", [0.10, 0.50, 0.99])
def test_dump_killed(stage: Stage, tmp_path: Path, share: float) -> None:
    """pg_dump dies at 10, 50 and 99 %: no success, no object, no parts; the reason is said."""
    dump_size = stage.backup().dump_size
    folder = tmp_path / "bin"
    folder.mkdir()
    real = pg_tools.choose(18, Settings())
    script = folder / "pg_dump"
    script.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then exec {real.program("pg_dump")} --version; fi\n'
        f'{real.program("pg_dump")} "$@" | head -c {int(dump_size * share)}\nkill -9 $$\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    for _ in range(2):
        with pytest.raises(JobError, match="ended by signal 9"):
            stage.backup(OPS_PG_BIN=str(folder))
        assert len(stage.storage.list("")) == 2
        assert stage.storage.pending("") == ()
    stage.proven_after(1)


def test_dump_cut_short_with_success(stage: Stage, tmp_path: Path) -> None:
    """A pg_dump that stops early and exits with 0 is not believed."""
    script = tmp_path / "pg_dump"
    real = pg_tools.choose(18, Settings()).program("pg_dump")
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec {real} "$@"\n{real} "$@" | head -c 9000000\nexit 0\n')
    script.chmod(0o700)
    with pytest.raises(JobError, match="last line is missing"):
        stage.backup(OPS_PG_BIN=str(tmp_path))
    assert stage.storage.list("") == ()
    stage.proven_after(0)


@pytest.mark.parametrize("fault", [500, 503, "silence"])
def test_part_fails(stage: Stage, fault: int | str) -> None:
    """A part is answered with 500, 503, or not at all: repeated; if that is no help, given up without a trace."""
    failed: list[str] = []

    def once(_: str, target: str) -> int | str | None:
        if "partNumber=2" in target and not failed:
            failed.append(target)
            return fault
        return None

    stage.proxy.rule = once
    stage.backup()  # once is mended
    assert failed
    stage.proxy.rule = lambda _, target: fault if "partNumber=2" in target else None
    with pytest.raises(StorageError, match="upload part 2"):
        stage.backup()
    assert len(backups.listing(stage.storage)) == 1
    assert stage.storage.pending("") == ()
    stage.proven_after(1)


def test_everything_fails_after_the_parts(stage: Stage) -> None:
    """The store goes away for good in the middle: not even the abort comes through. The next run tidies up."""
    gone: list[bool] = []
    stage.proxy.before = lambda _method, target: gone.append(True) if "partNumber=2" in target else None
    stage.proxy.rule = lambda _method, _target: 503 if gone else None
    with pytest.raises(StorageError):
        stage.backup()
    assert stage.storage.list("") == ()
    assert len(stage.storage.pending("")) == 1
    stage.proven_after(0)


def test_reply_to_complete_lost(stage: Stage) -> None:
    """The store completes and the reply is lost, each time: what is there is read and compared, and it is a backup."""
    stage.proxy.rule = lambda method, target: "lost" if method == "POST" and "uploadId" in target else None
    made = stage.backup()
    assert stage.verify().verified == [made.key]
    stage.proven_after(1)


def test_complete_refused(stage: Stage) -> None:
    """The store refuses to complete: no object, no manifest, no parts."""
    stage.proxy.rule = lambda method, target: 500 if method == "POST" and "uploadId" in target else None
    with pytest.raises(StorageError, match="complete upload"):
        stage.backup()
    assert stage.storage.list("") == ()
    assert stage.storage.pending("") == ()
    stage.proven_after(0)


def test_manifest_not_written(stage: Stage) -> None:
    """The object is there, its manifest is not: no success, nobody takes it for proven; the next run finishes it."""
    stage.proxy.rule = lambda method, target: 503 if method == "PUT" and ".json" in target else None
    with pytest.raises(StorageError):
        stage.backup()
    stage.calm()
    with pytest.raises(JobError, match="has no manifest"):
        stage.verify()
    with pytest.raises(JobError, match="has no manifest"):
        stage.drill()
    stage.proven_after(1)
    first, second = backups.listing(stage.storage)
    assert first.key != second.key
    assert _unfinished(stage) == 0


def test_store_gone_after_complete(stage: Stage) -> None:
    """The store completes and answers nothing from then on: no success; the next run finds a whole backup there."""
    gone: list[bool] = []

    def lose(method: str, target: str) -> str | int | None:
        if method == "POST" and "uploadId" in target and not gone:
            gone.append(True)
            return "lost"
        return 503 if gone else None

    stage.proxy.rule = lose
    with pytest.raises(StorageError):
        stage.backup()
    assert [one.has_manifest for one in backups.listing(stage.storage)] == [False]
    stage.proven_after(1)
    assert _unfinished(stage) == 0


def test_kept_manifest_of_another_object(stage: Stage) -> None:
    """A manifest kept for an object of another size vouches for nothing; one that is there is not overwritten."""
    made = stage.backup()
    manifest = backups.manifest(stage.storage, backups.one(stage.storage))
    other = f"{backups.PREFIX}2020-01-01.sql.gz"
    stage.storage.put(other, b"something")
    backups.begin(stage.environment["DATABASE_URL"], manifest.model_copy(update={"run": 8}))
    backups.begin(stage.environment["DATABASE_URL"], manifest.model_copy(update={"key": other}))
    assert _unfinished(stage) == 2
    stage.backup()
    found = {one.key: one.has_manifest for one in backups.listing(stage.storage)}
    assert (found[other], found[made.key], len(found)) == (False, True, 3)
    assert backups.manifest(stage.storage, backups.one(stage.storage, made.key)) == manifest
    assert _unfinished(stage) == 0


def _unfinished(stage: Stage) -> int:
    with psycopg.connect(stage.environment["DATABASE_URL"]) as connection:
        return len(connection.execute("SELECT FROM ops.backup_unfinished").fetchall())


def test_wrong_password(stage: Stage, own_postgres: PostgresServer) -> None:
    """The database refuses the login: said so, and the password stands nowhere."""
    with own_postgres.connect() as admin:
        admin.execute("ALTER ROLE postgres PASSWORD 'right-one-1'")
        (own_postgres.directory / "data" / "pg_hba.conf").write_text("local all all scram-sha-256\n")
        admin.execute("SELECT pg_reload_conf()")
    dsn = make_conninfo(own_postgres.dsn(), password="wrong-one-2")
    with pytest.raises(SourceError, match="password authentication failed") as failed:
        stage.backup(BACKUP_DATABASE_URL=dsn)
    assert "wrong-one-2" not in str(failed.value)
    assert stage.storage.list("") == ()
    stage.proven_after(0)


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


def test_disk_full_at_the_drill(stage: Stage) -> None:
    """The scratch server cannot grow: the drill fails, says so, is remembered as failed, and leaves nothing."""
    made = stage.backup()
    with tempfile.TemporaryDirectory() as folder:
        real = pg_tools.choose(18, Settings())
        for name in ("pg_dump", "psql", "initdb", "postgres"):
            # No file above 17 MB: more than a WAL segment, less than the table.
            limit = "ulimit -f 34816\n" if name == "postgres" else ""
            Path(folder, name).write_text(f'#!/bin/sh\n{limit}exec {real.program(name)} "$@"\n')
            Path(folder, name).chmod(0o755)
        Path(folder).chmod(0o755)  # for the account a throw-away server runs under
        for _ in range(2):
            with pytest.raises(JobError, match="could not extend file"):
                stage.drill(OPS_PG_BIN=folder)
    assert not list(Path(tempfile.gettempdir()).glob("ops-drill-*"))
    check = backups.checks(stage.environment["DATABASE_URL"])[made.key, Kind.DRILL]
    assert not check["ok"]
    assert "could not extend file" in check["error"]
    assert stage.drill().rows == made.rows


@pytest.fixture
def tiny_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 64 MB where temporary files go: room for a new server, not for the database."""
    if os.geteuid():
        pytest.skip("only root mounts a file system")
    with tempfile.TemporaryDirectory() as mount:
        options = "size=64m,mode=1777"  # for the account a throw-away server runs under
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", mount], check=False, capture_output=True)
        if done.returncode:
            pytest.skip("this root may not mount a file system")
        monkeypatch.setattr(tempfile, "tempdir", mount)
        yield Path(mount)
        monkeypatch.undo()
        subprocess.run(["umount", "--lazy", mount], check=True)


def test_no_space_left_at_the_drill(stage: Stage, tiny_disk: Path) -> None:
    """The disk itself is full (ENOSPC): the drill fails, says what to do, is remembered so, and leaves nothing."""
    made = stage.backup()
    for _ in range(2):
        with pytest.raises(JobError, match=r"No space left on device.*the server's disk is full"):
            stage.drill()
        assert list(tiny_disk.iterdir()) == []
    check = backups.checks(stage.environment["DATABASE_URL"])[made.key, Kind.DRILL]
    assert not check["ok"]
    assert stage.verify().verified == [made.key]


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


@contextmanager
def held(stage: Stage, part: str) -> Iterator[threading.Event]:
    """Let every PUT for `part` wait until the event is set."""
    reached, go = threading.Event(), threading.Event()

    def wait(method: str, target: str) -> None:
        if method == "PUT" and part in target:
            reached.set()
            go.wait(20)

    stage.proxy.before = wait
    failures: list[BaseException] = []

    def run() -> None:
        try:
            stage.backup()
        except BaseException as exc:  # noqa: BLE001 - raised in the test's own thread
            failures.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert reached.wait(20)
        yield go
    finally:
        go.set()
        thread.join()
        stage.calm()
    if failures:
        raise failures[0]


def test_duplicate_run(stage: Stage) -> None:
    """A second run while one is at work does nothing and says so; the first is not disturbed."""
    with held(stage, "partNumber=2") as go:
        with pytest.raises(JobError, match="another backup-database is running"):
            stage.backup()
        go.set()
    assert len(backups.listing(stage.storage)) == 1
    stage.proven_after(1)


def test_upload_aborted_by_retention(stage: Stage) -> None:
    """Somebody aborts the upload under way: the run fails, nothing has its key; the next one succeeds."""
    with pytest.raises(StorageError), held(stage, "partNumber=2") as go:  # noqa: PT012 - the block is the story
        for upload in stage.storage.pending(backups.PREFIX):
            stage.storage.abort(upload)
        go.set()
    assert stage.storage.list("") == ()
    stage.proven_after(0)


@pytest.mark.parametrize("moment", ["partNumber=2", ".json"])
def test_retention_races_an_upload(stage: Stage, source: str, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job `retention` runs in the middle of an upload, or before its manifest, with no mercy for the young.

    It leaves alone what a running backup writes. A store that lies about when an upload began (moto: 2010) loses it
    the upload, and that is no success.
    """

    def patient(kind: type[Storage], _: Settings) -> Storage:
        return kind(dataclasses.replace(stage.place, endpoint=stage.proxy.endpoint), timeout=20)

    monkeypatch.setattr(Storage, "of", classmethod(patient))
    monkeypatch.setattr(rules, "YOUNG", timedelta(days=-2))
    merciless = dataclasses.replace(retention.Policy(), stale=timedelta(seconds=-60))
    monkeypatch.setattr(retention, "Policy", lambda **_: merciless)
    lied = False
    with psycopg.connect(source, autocommit=True) as owner:
        s3_kit.a_finished_run(
            owner, "backup-database", outcome=None, finished_at=None, started_at=datetime.now(UTC), result=None
        )
        try:
            with held(stage, moment) as go:
                lied = any(upload.initiated.year < 2020 for upload in stage.storage.pending(""))
                done = retention.run(stage.run("retention"), retention.Params())
                assert (done.removed, done.aborted) == (0, int(lied))
                go.set()
        except StorageError:
            assert lied
        finally:
            owner.execute("DELETE FROM ops.job_runs")
    assert [one.has_manifest for one in backups.listing(stage.storage)] == [True] * (not lied)
    stage.proven_after(int(not lied))


def test_cancelled(stage: Stage) -> None:
    """A run that is told to stop stops in the middle and leaves nothing."""
    asked = iter(range(100))
    run = stage.run("backup-database", cancelled=lambda: next(asked) > 3)
    with pytest.raises(CancelledError):
        backup_database.run(run, NoParams())
    assert stage.storage.list("") == ()
    assert stage.storage.pending("") == ()
    stage.proven_after(0)


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
