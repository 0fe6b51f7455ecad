"""The job `cleanup`: facts first, no row lost on its way to the archive, and never more gone than is proven there."""

from __future__ import annotations

import gzip
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from demo.postgres import PostgresServer
from jobs import cleanup
from jobs.cleanup import JOB, Result
from opslib.areas import archive
from opslib.contract import contract, migrate
from opslib.errors import CancelledError, ConfigError, JobError
from opslib.spec import NoParams
from opslib.storage import Place, Storage
from tests.service import ledger_kit, s3_kit
from tests.service.job_kit import a_run

TODAY = datetime.now(UTC).date()
INSERT = """INSERT INTO webhook_logs
                ("externalId", "webhookType", payload, "signatureValid", processed, signature, "sourceIp", "createdAt")
            SELECT gen_random_uuid(), (ARRAY['nowpayments_ipn', 'kinguin_order_status'])[1 + mod(n, 2)],
                   jsonb_build_object('n', n, 'email', 'anna@mail.example', 'text', E'a\\nb'), true, mod(n, 3) = 0,
                   'sig', '1.2.3.4', %(day)s::timestamp + n * interval '7 seconds'
            FROM generate_series(1, %(count)s) n"""


@pytest.fixture
def bucket(rclone_s3: Place) -> Storage:
    """A bucket, empty."""
    storage = Storage(rclone_s3)
    storage.delete_many(one.key for one in storage.list(""))
    return storage


@pytest.fixture
def app(database: str, bucket: Storage) -> Iterator[psycopg.Connection[Any]]:
    """The application's own connection."""
    assert bucket.list("") == ()
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def env(database: str, rclone_s3: Place) -> dict[str, str]:
    """The job's settings; it logs in as a member of `ops_jobs` and nothing else."""
    return {"DATABASE_URL": s3_kit.as_job(database), **s3_kit.env_at(rclone_s3)}


def clean(env: dict[str, str], **run: Any) -> Result:
    """One run."""
    return cleanup.run(a_run(JOB.name, **run, **env), NoParams())


def ago(days: int) -> date:
    """That day."""
    return TODAY - timedelta(days=days)


def rows(app: psycopg.Connection[Any]) -> dict[str, str]:
    """Every webhook row, by id, as the table holds it."""
    return dict(app.execute("SELECT id::text, to_jsonb(w)::text FROM webhook_logs w").fetchall())


def archived(bucket: Storage, source: str = "webhook_logs") -> Counter[str]:
    """Every line of every archive, as any gunzip reads it."""
    found: Counter[str] = Counter()
    for one in bucket.list(f"archive/{source}/"):
        found.update(gzip.decompress(bucket.get(one.key)).decode().splitlines())
    return found


def facts(app: psycopg.Connection[Any], day: date) -> dict[str, float]:
    """What is remembered of a day."""
    found = app.execute("SELECT subject || ':' || key, value FROM ops.daily_facts WHERE day = %s", (day,)).fetchall()
    return {key: float(value) for key, value in found}


def test_facts_then_archive_then_delete(app: psycopg.Connection[Any], bucket: Storage, env: dict[str, str]) -> None:
    """Two old days go to the store whole; their facts stay; young rows stay; a second run has nothing to do."""
    for days in (2, 29, 31, 45):
        app.execute(INSERT, {"day": ago(days), "count": 1300 if days == 45 else 30})
    before = rows(app)
    young = {key for key, line in before.items() if json.loads(line)["createdAt"] >= str(ago(30))}
    result = clean(env)
    assert result.archived == {"webhook_logs": 1330, "job_runs": 0}
    assert result.objects == [f"archive/webhook_logs/{ago(days)}.ndjson.gz" for days in (45, 31)]
    assert rows(app).keys() == young
    assert archived(bucket) == Counter(line for key, line in before.items() if key not in young)
    assert result.days == 45
    for days, count in ((45, 1300), (31, 30), (2, 30)):
        assert sum(value for key, value in facts(app, ago(days)).items() if key.startswith("webhooks:")) == count
    kept = app.execute("SELECT key, lines, purged_at IS NOT NULL FROM ops.archives ORDER BY day").fetchall()
    assert kept == [(result.objects[0], 1300, True), (result.objects[1], 30, True)]

    again = clean(env)
    assert (again.archived["webhook_logs"], again.objects) == (0, [])
    assert again.days == 7, "the last week, which may still change"
    assert sum(facts(app, ago(45)).values()) == 1300, "facts outlive the rows they were counted from"


def test_late_and_changed_rows_get_an_object_of_their_own(
    app: psycopg.Connection[Any], bucket: Storage, env: dict[str, str]
) -> None:
    """A day archived twice: the first object is as it was, the second holds the rest, every row is in one of them."""
    app.execute(INSERT, {"day": ago(40), "count": 5})
    first = rows(app)
    (key,) = clean(env).objects
    content = bucket.get(key)
    app.execute(INSERT, {"day": ago(40), "count": 3})
    late = rows(app)
    result = clean(env)
    assert result.objects == [f"archive/webhook_logs/{ago(40)}.2.ndjson.gz"]
    assert bucket.get(key) == content
    assert archived(bucket) == Counter([*first.values(), *late.values()])
    assert rows(app) == {}


def test_row_that_changes_between_archive_and_delete(
    app: psycopg.Connection[Any], bucket: Storage, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row as it was archived is in the first object, as it is deleted in the second: neither version is lost."""
    app.execute(INSERT, {"day": ago(40), "count": 5})
    before = rows(app)
    proved = archive.prove

    def meanwhile(chunks: Any) -> archive.Proof:
        app.execute("UPDATE webhook_logs SET error = 'replayed' WHERE payload ->> 'n' = '3' AND error IS NULL")
        return proved(chunks)

    monkeypatch.setattr(archive, "prove", meanwhile)
    result = clean(env)
    assert result.archived["webhook_logs"] == 5
    assert len(result.objects) == 2
    assert sum(archived(bucket).values()) == 6
    assert set(before.values()) < archived(bucket).keys()
    assert rows(app) == {}


def test_rows_that_never_stand_still(
    app: psycopg.Connection[Any], env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up after some rounds, with a message; what changed is still there."""
    app.execute(INSERT, {"day": ago(40), "count": 5})
    proved = archive.prove

    def meanwhile(chunks: Any) -> archive.Proof:
        app.execute("UPDATE webhook_logs SET \"attemptCount\" = \"attemptCount\" + 1 WHERE payload ->> 'n' = '3'")
        return proved(chunks)

    monkeypatch.setattr(archive, "prove", meanwhile)
    with pytest.raises(JobError, match="change while they are archived"):
        clean(env)
    assert len(rows(app)) == 1


def test_nothing_goes_when_the_store_lies(app: psycopg.Connection[Any], bucket: Storage, env: dict[str, str]) -> None:
    """An object that is damaged, replaced or gone after it was proven: no row is deleted on its account."""
    app.execute(INSERT, {"day": ago(40), "count": 50})
    before = rows(app)
    key = f"archive/webhook_logs/{ago(40)}.ndjson.gz"
    whole = gzip.compress("".join(f"{line}\n" for line in before.values()).encode())
    for damaged in (whole[:-20], whole[:60] + b"x" + whole[61:], b"", whole + b"more", gzip.compress(b'{"id": "half')):
        bucket.put(key, damaged)
        with pytest.raises(JobError, match="damaged; keep it and ask why"):
            clean(env)
        assert rows(app) == before
    bucket.delete(key)
    with pytest.raises(CancelledError):
        clean(env, is_cancelled=lambda: bool(app.execute("SELECT FROM ops.archives").fetchall()))
    assert rows(app) == {}, "one page: it was deleted before the cancellation was seen"

    app.execute("UPDATE ops.archives SET purged_at = NULL")
    app.execute(INSERT, {"day": ago(40), "count": 2})
    content = bucket.get(key)
    bucket.put(key, whole)
    with pytest.raises(JobError, match="is not what was written there"):
        clean(env)
    bucket.delete(key)
    with pytest.raises(JobError, match="was archived and is not in the bucket"):
        clean(env)
    assert len(rows(app)) == 2
    bucket.put(key, content)
    assert clean(env).archived["webhook_logs"] == 2


def test_expired_sessions_go(
    app: psycopg.Connection[Any], env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that expired, in several batches; the others stay."""
    monkeypatch.setattr(cleanup, "SESSIONS", 7)
    app.execute(
        """INSERT INTO user_sessions ("userId", "refreshTokenHash", "expiresAt")
           SELECT gen_random_uuid(), n::text, now() + n * interval '1 hour' FROM generate_series(-21, 5) n"""
    )
    assert clean(env).sessions == 22
    assert clean(env).sessions == 0
    assert app.execute("SELECT count(*) FROM user_sessions").fetchone() == (5,)


def test_facts_of_a_day(app: psycopg.Connection[Any], env: dict[str, str]) -> None:
    """Orders and their value by status, payments, deliveries, bounces, runs, and readings of what leaves no row."""
    day = ago(1)
    app.execute(
        "INSERT INTO orders (email, status, \"totalCrypto\", \"createdAt\") VALUES ('a@b.example', 'paid', 12.5, %s)",
        (day,),
    )
    app.execute(
        "INSERT INTO orders (email, status, \"totalCrypto\", \"createdAt\") VALUES ('a@b.example', 'paid', 7.25, %s)",
        (day,),
    )
    app.execute("INSERT INTO orders (email, status) VALUES ('a@b.example', 'paid')")
    app.execute(
        """INSERT INTO payments ("orderId", "externalId", status, "createdAt")
           VALUES (gen_random_uuid(), '1', 'finished', %s)""",
        (day,),
    )
    app.execute('INSERT INTO keys ("orderItemId", "createdAt") VALUES (gen_random_uuid(), %s)', (day,))
    app.execute(
        "INSERT INTO email_bounces (email, type, \"bouncedAt\", \"createdAt\") VALUES ('a@b.example', 'hard', %s, %s)",
        (day, day),
    )
    app.execute(
        """INSERT INTO ops.exporter_series (exporter, series, value) VALUES
           ('queues/default', '["bitloot_queue_jobs_total", "catalog", "completed", "reprice"]', '[40]'),
           ('queues/default', '["bitloot_queue_jobs_total", "catalog", "completed", "sync"]', '[2]'),
           ('app/default', '["app_email_fail_total"]', '[3]')"""
    )
    clean(env)
    expected = {
        "orders:paid": 2,
        "orders_eur:paid": 19.75,
        "payments:finished": 1,
        "deliveries:": 1,
        "email_bounces:hard": 1,
        "queue_jobs_total:catalog/completed": 42,
        "emails_failed_total:": 3,
    }
    assert facts(app, day) == expected
    app.execute("UPDATE orders SET status = 'fulfilled' WHERE \"totalCrypto\" = 12.5")
    app.execute("UPDATE ops.exporter_series SET value = '[900]'")
    clean(env)
    assert facts(app, day) == {
        **expected,
        "orders:paid": 1,
        "orders:fulfilled": 1,
        "orders_eur:paid": 7.25,
        "orders_eur:fulfilled": 12.5,
    }, "rows are counted anew while they may change; a reading is of its moment"


def test_facts_are_final(app: psycopg.Connection[Any], env: dict[str, str]) -> None:
    """A day older than a week is never counted again, nor can the day that is not over be; missed days are made up."""
    app.execute("INSERT INTO orders (email, \"createdAt\") VALUES ('a@b.example', %s)", (ago(70),))
    app.execute("INSERT INTO orders (email, \"createdAt\") VALUES ('a@b.example', %s)", (ago(9),))
    assert clean(env).days == 70
    app.execute("DELETE FROM orders")
    clean(env)
    assert [facts(app, ago(days)).get("orders:created") for days in (70, 9, 10)] == [1, 1, None]
    save = "SELECT ops.facts_save(%s, false, '{}', '{}', '{}')"
    assert app.execute(save, (ago(70),)).fetchone() == (False,)
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        app.execute(save, (TODAY,))
    app.execute("DELETE FROM ops.fact_days WHERE day BETWEEN %s AND %s", (ago(30), ago(20)))
    assert clean(env).days == 11 + 7


def test_our_own_runs(app: psycopg.Connection[Any], bucket: Storage, env: dict[str, str]) -> None:
    """Runs that ended long ago are archived as history shows them, and deleted; newer and unfinished ones stay."""
    for days, outcome in ((100, "SUCCESS"), (100, "FAILED"), (95, "SUCCESS"), (80, "SUCCESS")):
        then = datetime.combine(ago(days), datetime.min.time(), UTC) + timedelta(hours=3)
        s3_kit.a_finished_run(app, "old", outcome=outcome, finished_at=then, queued_at=then)
    result = clean(env)
    assert result.archived == {"webhook_logs": 0, "job_runs": 3}
    lines = [json.loads(line) for line in archived(bucket, "job_runs")]
    assert sorted((line["job"], line["outcome"]) for line in lines) == [
        ("old", "FAILED"),
        ("old", "SUCCESS"),
        ("old", "SUCCESS"),
    ]
    assert app.execute("SELECT count(*) FROM ops.job_runs").fetchone() == (1,)
    assert facts(app, ago(100)) == {"job_runs:old/SUCCESS": 1, "job_runs:old/FAILED": 1}
    assert clean(env).archived["job_runs"] == 0


def test_ops_schema_on_another_server(
    own_postgres: PostgresServer, app_database: str, bucket: Storage, rclone_s3: Place
) -> None:
    """Rows here, facts and archives there: no statement needs both."""
    ops = own_postgres.dsn("postgres")
    migrate.up(ops)
    assert contract.apply(app_database, ops).findings == ()
    env = {
        "DATABASE_URL": s3_kit.as_job(app_database),
        "OPS_DATABASE_URL": s3_kit.as_job(ops),
        **s3_kit.env_at(rclone_s3),
    }
    with psycopg.connect(app_database, autocommit=True) as app, psycopg.connect(ops, autocommit=True) as ours:
        app.execute(INSERT, {"day": ago(40), "count": 12})
        assert clean(env).archived["webhook_logs"] == 12
        assert sum(facts(ours, ago(40)).values()) == 12
        assert sum(archived(bucket).values()) == 12
        assert clean(env).archived["webhook_logs"] == 0


async def test_counters_do_not_notice(app: psycopg.Connection[Any], database: str, env: dict[str, str]) -> None:
    """No row goes while the ledger still adds history; afterwards its totals are the same, and go on from there."""
    app.execute(INSERT, {"day": ago(40), "count": 30})
    app.execute(INSERT, {"day": ago(3), "count": 5})
    app.execute("SELECT ops.ledger_start('webhook', now())")
    with pytest.raises(JobError, match="the ledger exporter still adds history"):
        clean(env)
    assert len(rows(app)) == 35
    async with ledger_kit.ledger(database) as ledger:
        await ledger.refresh()
        before = await ledger_kit.counted(ledger)
        assert sum(before.values()) == 35
        assert clean(env).archived["webhook_logs"] == 30
        await ledger.refresh()
        assert await ledger_kit.counted(ledger) == before
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as shop:
            await ledger_kit.insert(shop, "ok")
        await ledger.refresh()
        assert sum((await ledger_kit.counted(ledger)).values()) == 36


def test_without_a_bucket(app: psycopg.Connection[Any], database: str) -> None:
    """Facts are written and sessions go; no row does. Without a database it says what to set."""
    app.execute(INSERT, {"day": ago(40), "count": 12})
    result = clean({"DATABASE_URL": s3_kit.as_job(database)})
    assert (result.days, result.archived, len(rows(app))) == (40, {}, 12)
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        clean({})


CHILD = """
import os
from jobs import cleanup
from opslib import settings
from opslib.areas import archive
from opslib.run import Run
from opslib.spec import NoParams
archive.PAGE = 20
run = Run(1, "cleanup", settings.load(), None, 1, "schedule", lambda _: None, lambda: False)
print("ready", flush=True)
cleanup.run(run, NoParams())
"""


@pytest.mark.timeout(240)
def test_killed_at_any_moment(app: psycopg.Connection[Any], bucket: Storage, env: dict[str, str]) -> None:
    """Kill -9 again and again, anywhere: in the end every row is in the archive as it was, and the facts are whole.

    After each kill, a row is in the table or in the archive, as it was.
    """
    for days in (33, 38, 44):
        app.execute(INSERT, {"day": ago(days), "count": 400})
    before = Counter(rows(app).values())
    chance = random.Random(7)
    kills = 0
    while True:
        child = subprocess.Popen([sys.executable, "-c", CHILD], env={**env, "PATH": ""}, stdout=subprocess.PIPE)
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        try:
            child.wait(timeout=chance.uniform(0.02, 0.4) if kills < 12 else 60)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            kills += 1
        child.stdout.close()
        assert child.returncode in {0, -signal.SIGKILL}
        here, there = Counter(rows(app).values()), archived(bucket)
        assert before.keys() <= here.keys() | there.keys(), "a row is nowhere"
        if child.returncode == 0 and not here:
            break
        time.sleep(0.01)
    assert kills >= 3
    assert archived(bucket).keys() == before.keys()
    for days in (33, 38, 44):
        assert sum(facts(app, ago(days)).values()) == 400
