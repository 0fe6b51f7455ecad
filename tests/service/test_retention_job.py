"""The job `retention` on a real bucket and a real database: it does what its dry run says, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from jobs import retention
from jobs.retention import JOB, Params, Result
from opslib import settings
from opslib.areas import retention as rules
from opslib.areas.backups import MANIFEST, Check, Kind, Manifest, key_for, remember
from opslib.areas.retention import IncompleteError, NothingProvenError, TooMuchError
from opslib.errors import StorageError
from opslib.storage import Place, Storage
from opslib.storage_upload import PART_BYTES, Upload
from tests.service import s3_kit
from tests.service.job_kit import a_run

NOW = datetime.now(UTC)


@pytest.fixture
def owner(database: str) -> Iterator[psycopg.Connection[Any]]:
    """Our own database."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def env(database: str, s3: Place) -> dict[str, str]:
    """The job's settings; it logs in as a member of `ops_jobs` and nothing else."""
    return {"DATABASE_URL": s3_kit.as_job(database), **s3_kit.env_at(s3)}


@pytest.fixture(autouse=True)
def _nothing_is_young(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every object here was written just now."""
    monkeypatch.setattr(rules, "YOUNG", timedelta(days=-2))


def back_up(storage: Storage, dsn: str, days: int, *, verified: bool = True, manifest: bool = True) -> str:
    """A backup taken so many days ago, small."""
    at = NOW - timedelta(days=days)
    key = key_for(at, encrypted=False, first=True)
    body = key.encode()
    storage.put(key, body)
    if manifest:
        said = Manifest(
            key=key,
            sha256=f"{days:064d}",
            size=len(body),
            dump_size=1,
            started=at,
            seconds=1,
            database="shop",
            encoding="UTF8",
            server_version="18.0",
            client_version="18.0",
            encryption=None,
            tables=(),
            ops_version="0",
            run=days,
        )
        storage.put(key + MANIFEST, said.dumps())
    if verified:
        remember(dsn, Check(key, Kind.VERIFY, ok=True, sha256=f"{days:064d}", bytes=len(body), seconds=1), days)
    return key


def clean(env: dict[str, str], **params: Any) -> Result:
    """One run."""
    return retention.run(a_run(JOB.name, **env), Params(**params))


def keys(storage: Storage) -> set[str]:
    """What is in the bucket."""
    return {one.key for one in storage.list("")}


def test_does_what_the_dry_run_says(env: dict[str, str], s3: Place) -> None:
    """Sixty nights: what goes is what was announced, manifests too; strangers stay; a second run has nothing to do."""
    storage = Storage(s3)
    lone = back_up(storage, env["DATABASE_URL"], 70, verified=False, manifest=False)
    made = [back_up(storage, env["DATABASE_URL"], days) for days in reversed(range(60))]
    strangers = {"backups/db/notes.txt", "backups/db/2026-01-01.sql", "backups/bitloot-2020.tar", "orders/1/key.txt"}
    for stranger in strangers:
        storage.put(stranger, b"?")
    before = keys(storage)
    planned = clean(env, dry_run=True)
    assert JOB.plan
    said = JOB.plan(settings.load(env), Params())
    assert said == [*planned.steps, f"backups that stay: {len(planned.kept)}"], "what `jobs exec` shows first"
    assert keys(storage) == before
    assert planned.steps[0] == f"delete {lone}: no rule keeps it"
    done = clean(env)
    assert (done.steps, done.kept, done.removed) == (planned.steps, planned.kept, planned.removed)
    assert done.removed >= 20
    gone = before - keys(storage)
    assert gone == {step.split()[1].rstrip(":") for step in done.steps} | {
        step.split()[1].rstrip(":") + MANIFEST for step in done.steps if lone not in step
    }
    assert strangers < keys(storage)
    assert made[-1] in done.kept
    again = clean(env)
    assert (again.steps, again.kept) == ([], done.kept)
    assert JOB.plan(settings.load(env), Params())[0] == "nothing to delete"


def test_refusals_touch_nothing(env: dict[str, str], s3: Place, owner: psycopg.Connection[Any]) -> None:
    """Nothing proven, too much at once, a backup our records know and the bucket lacks, no answer: all is as it was."""
    storage = Storage(s3)
    for days in reversed(range(60)):
        back_up(storage, env["DATABASE_URL"], days, verified=False)
    before = keys(storage)
    with pytest.raises(NothingProvenError):
        clean(env)
    back_up(storage, env["DATABASE_URL"], 0)
    with pytest.raises(TooMuchError):
        clean(env, max_share=0.01)
    s3_kit.a_finished_run(owner, "backup-database", {"key": "backups/db/2199-01-01.sql.gz"})
    with pytest.raises(IncompleteError, match=r"2199-01-01\.sql\.gz should be in the bucket"):
        clean(env, max_share=1)
    with pytest.raises(StorageError):
        clean({**env, "R2_BUCKET": "another"})
    assert keys(storage) == before


def test_altered_or_damaged_is_not_proven(env: dict[str, str], s3: Place) -> None:
    """Proofs of another content, of a manifest that was altered, or followed by a failure, do not count."""
    storage, dsn = Storage(s3), env["DATABASE_URL"]
    made = [back_up(storage, dsn, days) for days in range(5)]
    storage.put(made[0] + MANIFEST, storage.get(made[0] + MANIFEST).replace(b"shop", b"shot"))
    storage.put(made[1], b"longer than its manifest says, by far")
    remember(dsn, Check(made[2], Kind.VERIFY, ok=False, sha256="", bytes=1, seconds=1, error="damaged"), 9)
    remember(dsn, Check(made[2], Kind.DRILL, ok=True, sha256=f"{2:064d}", bytes=1, seconds=1), 9)
    found = {backup.key: backup.verified for backup in retention.look(storage, dsn).backups}
    assert [found[key] for key in made] == [False, False, False, True, True]


def test_orphans_and_abandoned_uploads_go(
    env: dict[str, str], s3: Place, owner: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest without its backup goes; so do the parts of an upload nobody finishes, but not a running backup's."""
    storage = Storage(s3)
    key = back_up(storage, env["DATABASE_URL"], 3)
    storage.delete(key)
    upload = Upload(storage, key_for(NOW, encrypted=False, first=False))
    upload.write(b"x" * (2 * PART_BYTES + 1))  # some parts are sent, and then its process is killed
    while not storage.pending("backups/"):
        pass
    began = storage.pending("backups/")[0].initiated
    assert clean(env).steps[0] == f"delete {key}{MANIFEST}: its backup is not there"
    assert keys(storage) == set()
    later = replace(retention.Policy(), stale=timedelta(seconds=-60))
    monkeypatch.setattr(retention, "Policy", lambda **_: later)
    s3_kit.a_running_run(owner, "backup-database")
    if began.year > 2020:  # moto dates every upload 2010
        assert clean(env).aborted == 0
        owner.execute("DELETE FROM ops.job_runs")
        assert clean(env).aborted == 1
    assert clean(env).aborted == 0
    upload._threads.shutdown()


def test_killed_between_manifest_and_backup(env: dict[str, str], s3: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run that died leaves behind vouches for nothing false, and the next run removes it."""
    storage = Storage(s3)
    for days in reversed(range(40)):
        back_up(storage, env["DATABASE_URL"], days)
    planned = clean(env, dry_run=True)

    def dies(self: Storage, key: str) -> None:
        if not key.endswith(MANIFEST):
            raise KeyboardInterrupt
        real(self, key)

    real = Storage.delete
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "delete", dies)
        with pytest.raises(KeyboardInterrupt):
            clean(env)
    listing = retention.look(storage, env["DATABASE_URL"])
    assert listing.orphans == ()
    assert [backup.verified for backup in listing.backups].count(False) == 1
    assert clean(env).steps == planned.steps
