"""Backups that go wrong, on three servers: none is recorded as success unless it is there whole, none leaves anything.

Each fault is followed by an undisturbed run, after which exactly one more backup is there, proven, and nothing dangles.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from demo.postgres import PostgresServer
from jobs import backup_database, retention
from opslib import storage_upload
from opslib.areas import backups, pg_tools
from opslib.areas import retention as rules
from opslib.areas.backups import Kind
from opslib.errors import CancelledError, JobError, SourceError, StorageError
from opslib.settings import Settings
from opslib.spec import NoParams
from opslib.storage import Place
from tests.service import backup_kit, s3_kit
from tests.service.backup_kit import Stage, held

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
    if fault == "silence":
        stage.patience = 5

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


def test_unconfirmed_is_asked_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object the store confirmed when it was completed is not asked for again; another is, and must be there."""
    completed: list[str] = []
    asked: list[str] = []

    def watch(method: str, target: str) -> None:
        if method == "POST" and "uploadId" in target:
            completed.append(target)
        elif method == "HEAD" and completed and ".json" not in target:
            asked.append(target)

    stage.proxy.before = watch
    stage.backup()
    assert (len(completed), asked) == (1, [])
    stage.storage.delete_many(one.key for one in stage.storage.list(""))  # two in one second would share a key
    completed.clear()
    monkeypatch.setattr(storage_upload, "_of_parts", lambda _: "not an ETag")
    stage.backup()
    assert len(asked) == 1
    completed.clear()
    stage.proxy.rule = lambda method, _: 404 if method == "HEAD" and completed else None
    with pytest.raises(JobError, match="as it was sent"):
        stage.backup()
    stage.calm()
    assert [one.has_manifest for one in backups.listing(stage.storage)] == [True, False]


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


def test_disk_full_at_the_drill(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
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
        place = Path(folder, "tmp")
        place.mkdir()
        place.chmod(0o1777)  # as before
        with monkeypatch.context() as elsewhere:  # than where other tests' drills are at the same time
            elsewhere.setattr(tempfile, "tempdir", str(place))
            for _ in range(2):
                with pytest.raises(JobError, match="could not extend file"):
                    stage.drill(OPS_PG_BIN=folder)
        assert list(place.iterdir()) == []
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
