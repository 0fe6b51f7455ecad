"""`opsctl backups`, as a person types it: list, verify, drill, restore; and what the exporter says of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from demo.postgres import PostgresServer
from exporters import backups as exporter
from opslib import audit, audit_chain, audit_store, settings
from opslib.areas import backups
from opslib.areas.backups import Kind
from opslib.errors import StorageError
from opslib.spec import Sample
from opslib.storage import Place, Storage

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(database: str, strict_r2: Place) -> dict[str, str]:
    """A shop with an empty bucket."""
    storage = Storage(strict_r2)
    storage.delete_many(one.key for one in storage.list(""))
    return {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": database,
        "R2_ENDPOINT": strict_r2.endpoint,
        "R2_BUCKET": strict_r2.bucket,
        "R2_ACCESS_KEY_ID": strict_r2.access_key_id.get_secret_value(),
        "R2_SECRET_ACCESS_KEY": strict_r2.secret_access_key.get_secret_value(),
        "RESTORE_DATABASE_URL": make_conninfo(database, dbname="postgres"),
    }


def opsctl(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Type a command; nobody sits at a terminal."""
    command = [sys.executable, "-m", "opsctl.cli", *words]
    return subprocess.run(
        command, env=environment, cwd=ROOT, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def done(environment: dict[str, str], *words: str) -> str:
    """Type a command that must succeed; what it printed."""
    result = opsctl(environment, *words)
    assert result.returncode == 0, result.stderr
    return result.stdout


def samples(environment: dict[str, str]) -> dict[tuple[str, ...], float]:
    """What the exporter would publish."""

    async def collect() -> list[Sample]:
        found: list[Sample] = []
        for collector in exporter.collectors(settings.load(environment)):
            await collector.start()
            found += [part for part in await collector.collect() if isinstance(part, Sample)]
            await collector.stop()
        return found

    return {(one.metric.name, *one.labels): one.value[0] for one in asyncio.run(collect())}


def test_life_of_a_backup(environment: dict[str, str], strict_r2: Place) -> None:
    """Nothing, one, verified, drilled; damaged: exit 1, and the page and the list say so."""
    why = ("--reason", "a test")
    assert "no backup yet" in done(environment, "backups", "list")
    assert opsctl(environment, "backups", "verify", *why).returncode == 1
    assert samples(environment)["bitloot_backups", "yes"] == 0
    done(environment, "jobs", "exec", "backup-database", "--yes", *why)
    assert samples(environment)["bitloot_backup_newest_proven",] == 0
    (first,) = json.loads(done(environment, "backups", "list", "--json"))
    assert (first["verified"], first["drilled"], first["manifest"]) == ("no", "no", "yes")
    assert "SUCCESS" in done(environment, "backups", "verify", *why)
    assert "SUCCESS" in done(environment, "backups", "drill", *why)
    assert samples(environment)["bitloot_backup_newest_proven",] == 1
    done(environment, "jobs", "exec", "backup-database", "--yes", *why)
    page = samples(environment)
    assert (page["bitloot_backup_proven", "verify"], page["bitloot_backup_newest_proven",]) == (1, 0)
    assert "SUCCESS" in done(environment, "backups", "verify", "--all", *why)
    second, first = json.loads(done(environment, "backups", "list", "--json"))
    assert (first["verified"], first["drilled"], second["verified"], second["drilled"]) == ("ok", "ok", "ok", "no")
    page = samples(environment)
    assert page["bitloot_backups", "yes"] == 2
    assert page["bitloot_backup_newest_bytes",] == second["bytes"]
    assert page["bitloot_backup_size_ratio",] == pytest.approx(second["bytes"] / first["bytes"])
    assert page["bitloot_backup_proven", "verify"] == 1
    assert page["bitloot_backup_proven", "drill"] == 1
    assert page["bitloot_backup_newest_proven",] == 1
    assert page["bitloot_backup_check_seconds", "drill"] > 0
    storage = Storage(strict_r2)
    body = bytearray(storage.get(second["key"]))
    body[len(body) // 2] ^= 8
    storage.put(second["key"], bytes(body))
    mistyped = opsctl(environment, "backups", "verify", "backups/db/2026.sql.gz", *why)
    assert (mistyped.returncode, "there is no backup" in mistyped.stderr) == (4, True)
    (last,) = json.loads(done(environment, "jobs", "history", "--limit", "1", "--json"))
    assert last["state"] == "SUCCESS"  # no run was made of it, so no proof has failed
    damaged = opsctl(environment, "backups", "verify", second["key"], *why)
    assert damaged.returncode == 1
    assert "damaged" in damaged.stderr
    assert opsctl(environment, "backups", "drill", *why).returncode == 1
    assert json.loads(done(environment, "backups", "list", "--json"))[0]["verified"] == "failed"
    assert samples(environment)["bitloot_backup_proven", "verify"] == 0
    assert samples(environment)["bitloot_backup_newest_proven",] == 0
    assert not backups.checks(environment["DATABASE_URL"])[second["key"], Kind.DRILL]["ok"]


async def test_proven_on_the_first_page(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter says it with its first reading, whichever source is slower; a bucket away hides that only."""
    await asyncio.to_thread(done, environment, "jobs", "exec", "backup-database", "--yes", "--reason", "a test")
    await asyncio.to_thread(done, environment, "backups", "verify", "--reason", "a test")
    away = {**environment, "R2_ENDPOINT": "http://127.0.0.1:9"}
    for settled, known in ((environment, 1), (away, None), (environment, 1)):
        objects, checks = exporter.collectors(settings.load(settled))
        await checks.start()
        first = asyncio.create_task(checks.collect())
        with contextlib.suppress(StorageError):
            await objects.collect()
        page = {one.metric.name: one.value[0] for one in await first if isinstance(one, Sample)}
        assert page["bitloot_backup_proven"] == 1
        assert page.get("bitloot_backup_newest_proven") == known
        await checks.stop()
    monkeypatch.setattr(exporter, "FIRST_SECONDS", 0.1)
    _, checks = exporter.collectors(settings.load(environment))  # whose bucket hangs
    await checks.start()
    assert exporter.NEWEST_PROVEN.name not in {one.metric.name for one in await checks.collect()}
    await checks.stop()


def test_flipped_bits_exit_code(environment: dict[str, str], strict_r2: Place) -> None:
    """A bit anywhere in object or manifest: `opsctl backups verify` ends with 1 each time, whole again with 0."""
    why = ("--reason", "a test")
    done(environment, "jobs", "exec", "backup-database", "--yes", *why)
    storage, chance = Storage(strict_r2), random.Random(5)
    key = backups.one(storage).key
    for number in range(8):
        at = (key, key + backups.MANIFEST)[number % 2]
        whole = storage.get(at)
        body = bytearray(whole)
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
        storage.put(at, bytes(body))
        assert opsctl(environment, "backups", "verify", *why).returncode == 1
        storage.put(at, whole)
    assert "SUCCESS" in done(environment, "backups", "verify", *why)


def test_restore(environment: dict[str, str], strict_r2: Place, postgres_server: PostgresServer) -> None:
    """Asked for by name, refused where it would hurt, whole at the end; its runs and its audit say what happened."""
    live = environment["DATABASE_URL"]
    name = "restored_by_test"
    target = make_conninfo(live, dbname=name)
    with psycopg.connect(live, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO orders (email) SELECT 'buyer-' || n || '@mail.example' FROM generate_series(1, 50) n"
        )
    done(environment, "jobs", "exec", "backup-database", "--yes", "--reason", "a test")
    done(environment, "jobs", "enqueue", "backup-database", "--yes", "--reason", "stays queued")
    done(environment, "jobs", "exec", "backup-database", "--yes", "--reason", "a test")
    with audit.connect(live) as connection:  # a head the backup does not hold
        audit.append(connection, audit.Event("OPS_TEST", "test.later"), audit.Outcome.ALLOWED)
        lost = audit.head(connection)
    storage = Storage(strict_r2)
    audit_store.anchor(storage, lost, lost.at)
    key = backups.one(storage).key
    restore = ("backups", "restore", key, "--target")
    yes = ("--reason", "rehearsal", "--confirm", name)
    try:
        for words, why in (
            ((*restore, name, "--reason", "rehearsal"), f"confirm with --confirm={name}"),
            ((*restore, name, "--reason", "rehearsal", "--confirm", "other"), "not confirmed"),
            ((*restore, name, "--confirm", name), "say why"),
            ((*restore, str(conninfo_to_dict(live)["dbname"]), *yes), "in use by these settings"),
            ((*restore, "postgres", "--reason", "a slip", "--confirm", "postgres"), "the server's own"),
            ((*restore, "template1", "--reason", "a slip", "--confirm", "template1"), "the server's own"),
        ):
            refused = opsctl(environment, *words)
            assert (refused.returncode, why in refused.stderr) == (3, True), refused.stderr
        assert opsctl(environment, "backups", "restore", "backups/db/none", "--target", name, *yes).returncode == 4
        assert "is created" in opsctl(environment, *restore, name, *yes, "--dry-run").stderr
        with postgres_server.connect() as admin:
            assert admin.execute("SELECT count(*) FROM pg_database WHERE datname = %s", (name,)).fetchone() == (0,)
        said = done(environment, *restore, name, *yes)
        assert "as in the manifest" in said
        assert "runs cancelled: 2" in said  # the queued one, and the backup itself
        _restored(target, key, storage, lost)
        again = opsctl(environment, *restore, name, *yes)
        assert again.returncode == 3
        assert "--into-existing" in again.stderr
        with psycopg.connect(target, autocommit=True) as connection:
            connection.execute("DELETE FROM orders")
        assert "as in the manifest" in done(environment, *restore, name, *yes, "--into-existing")
        _restored(target, key, storage, lost)
        body = bytearray(storage.get(key))
        body[-30] ^= 1
        storage.put(key, bytes(body))
        broken = opsctl(environment, *restore, name, *yes, "--into-existing")
        assert broken.returncode == 1
        _restored(target, key, storage, lost)  # as it was: the transaction was undone
    finally:
        with postgres_server.connect() as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    trail = json.loads(done(environment, "audit", "list", "--action", "backups.restore", "--json"))
    assert {row["outcome"] for row in trail} == {"intent", "allowed", "refused", "failed"}


def _restored(target: str, key: str, storage: Storage, lost: audit.Head) -> None:
    """Rows, runs and audit of a restored database."""
    with psycopg.connect(target) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (50,)
        runs = connection.execute("SELECT state, error FROM ops_view.job_runs ORDER BY id").fetchall()
        assert runs == [("SUCCESS", None), ("CANCELLED", "restored"), ("CANCELLED", "restored")]
        assert connection.execute("SELECT count(*) FROM ops.procrastinate_jobs").fetchone() == (0,)
        (told,) = connection.execute(
            "SELECT target, payload ->> 'anchored_hash' FROM ops.audit_events WHERE action = 'backups.restored'"
        ).fetchall()
        assert told == (key, lost.hash.hex())
    assert audit_chain.verify(target, audit_store.noted(storage)).ok
