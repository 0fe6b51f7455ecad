"""The demo's truth is true: what the traffic says it did stands in the tables and in Redis, found by other means."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psycopg
import redis as redis_py

from demo.stories import WEIGHTS
from demo.traffic import Traffic, drained
from demo.truth import Series, series
from demo.world import World, world

# The rules of the application's specification, told once more and differently than the contract tells them.
OUTCOMES = """
    SELECT split_part("webhookType", '_', 1),
           CASE WHEN "webhookType" LIKE 'kinguin%' THEN 'ok'
                WHEN "signatureValid" AND processed THEN 'ok'
                WHEN error IS NOT NULL THEN CASE WHEN error ILIKE '%signature%' THEN 'invalid' ELSE 'error' END
                WHEN result->>'error' = 'Invalid webhook signature' THEN 'invalid'
                WHEN "signatureValid" THEN 'error'
                WHEN result->>'message' = 'Processing' AND "updatedAt" = "createdAt" THEN 'duplicate' END,
           count(*)
    FROM webhook_logs GROUP BY 1, 2
"""

PROBLEMS = """
    SELECT 'paid_unfulfilled', count(*) FROM orders WHERE status = 'paid'
    UNION ALL
    SELECT 'payment_finished_order_unmoved', count(*) FROM orders o
    WHERE status IN ('created', 'waiting', 'confirming')
      AND EXISTS (SELECT FROM payments p WHERE p."orderId" = o.id AND p.status = 'finished')
    UNION ALL
    SELECT 'reservation_leaked', count(*) FROM orders o
    WHERE status = 'fulfilled'
      AND EXISTS (SELECT FROM product_inventory i WHERE i."reservedForOrderId" = o.id AND i.status = 'reserved')
    UNION ALL
    SELECT 'fulfilled_without_payment', count(*) FROM orders o
    WHERE status = 'fulfilled' AND NOT EXISTS (SELECT FROM payments p WHERE p."orderId" = o.id)
    UNION ALL
    SELECT 'ipn_dropped', count(*) FROM orders o JOIN payments p ON p."orderId" = o.id
    WHERE o.status NOT IN ('paid', 'fulfilled', 'refunded', 'cancelled')
      AND EXISTS (SELECT FROM webhook_logs w WHERE w."externalId" = p."externalId"
                  AND w.result->>'message' = 'Processing')
"""


async def test_the_truth_is_what_the_rows_and_the_queues_say(app_database: str, redis: str, tmp_path: Path) -> None:
    """After every kind of story, a stalled job and an application's restart, all counts agree."""
    thawed: list[str] = []

    async def counted(row: str) -> bool:
        thawed.append(row)
        return True

    async with world(app_database, redis, tmp_path, counted=counted) as here:
        traffic = Traffic(here.stories, here.truth, per_second=40)
        await traffic.tell_all()
        await here.queues.stall()
        await traffic.tell_all()
        assert await drained(here.queues, 30)
        assert here.truth.faults == []
        assert traffic.told == 2 * len(WEIGHTS)
        _rows_agree(app_database, here, thawed=len(thawed))
        _jobs_agree(redis, here)
        await _app_agrees(here)


def _rows_agree(dsn: str, here: World, *, thawed: int) -> None:
    truth, gauges = here.truth.counters, here.gauges()
    with psycopg.connect(dsn) as connection:
        rows: Counter[Series] = Counter()
        for provider, outcome, count in connection.execute(OUTCOMES):
            rows[series("bitloot_webhook_total", provider=provider, outcome=outcome)] = count
        # A row that was counted as a duplicate before it turned out fine was counted once, as what it was then.
        rows[series("bitloot_webhook_total", provider="nowpayments", outcome="ok")] -= thawed
        rows[series("bitloot_webhook_total", provider="nowpayments", outcome="duplicate")] += thawed
        kinguin = {of for of in truth if ("provider", "kinguin") in of[1] and ("outcome", "ok") not in of[1]}
        assert rows == {of: n for of, n in truth.items() if of[0] == "bitloot_webhook_total" and of not in kinguin}
        reclassified = {"provider": "nowpayments", "from_": "duplicate", "to": "ok"}
        assert truth[series("bitloot_webhook_reclassified_total", **reclassified)] == thawed > 0
        bounces = dict(connection.execute("SELECT type::text, count(*) FROM email_bounces GROUP BY type").fetchall())
        assert bounces == {of[1][0][1]: n for of, n in truth.items() if of[0] == "bitloot_email_bounce_total"}
        for table in ("orders", "payments"):
            for status, count in connection.execute(f"SELECT status::text, count(*) FROM {table} GROUP BY status"):
                assert gauges.pop(series(f"bitloot_{table}", status=status)) == count
        assert not [of for of in gauges if of[0] in {"bitloot_orders", "bitloot_payments"}]
        underpaid = here.truth.counters[series("bitloot_underpaid_total")]
        assert _one(connection, "SELECT count(*) FROM orders WHERE status = 'underpaid'") == underpaid > 0
        for problem, count in connection.execute(PROBLEMS):
            assert gauges[series("bitloot_reconciliation_orders", problem=problem)] == count > 0, problem
        delivered = """
            SELECT count(DISTINCT w."orderId") FROM webhook_logs w
            JOIN order_items i ON i."orderId" = w."orderId" JOIN keys k ON k."orderItemId" = i.id
            WHERE w."paymentStatus" = 'finished' AND w.processed"""
        assert _one(connection, delivered) == truth[series("bitloot_paid_to_fulfilled_seconds_count")] > 0


def _jobs_agree(url: str, here: World) -> None:
    truth, gauges = here.truth.counters, here.gauges()
    found: Counter[Series] = Counter()
    with redis_py.Redis.from_url(url, decode_responses=True) as client:
        for queue in ("fulfillment-queue", "catalog", "payments-queue", "fulfillment"):
            names, started = {}, set()
            for _, event in client.xrange(f"bull:{queue}:events"):
                kind, job = event["event"], event.get("jobId")
                name = names.get(job, "")
                if kind == "added":
                    names[job] = event["name"]
                elif kind in {"completed", "failed"}:
                    found[series("bitloot_queue_jobs_total", queue=queue, result=kind, name=name)] += 1
                elif kind == "active":
                    started.add(job)
                elif kind == "delayed" and job in started:
                    found[series("bitloot_queue_retries_total", queue=queue, name=name)] += 1
                elif kind == "stalled":
                    found[series("bitloot_queue_stalled_total", queue=queue)] += 1
            for state, key in (("failed", "failed"), ("delayed", "delayed"), ("prioritized", "prioritized")):
                assert gauges[series(f"bitloot_queue_{state}", queue=queue)] == client.zcard(f"bull:{queue}:{key}")
            assert gauges[series("bitloot_queue_waiting", queue=queue)] == client.llen(f"bull:{queue}:wait")
    families = {"bitloot_queue_jobs_total", "bitloot_queue_retries_total", "bitloot_queue_stalled_total"}
    assert found == {of: n for of, n in truth.items() if of[0] in families}
    assert {of[0] for of in found} == families


async def _app_agrees(here: World) -> None:
    async with httpx.AsyncClient(base_url=here.app.url) as http:
        assert (await http.get("/healthz")).status_code == 200
        assert len((await http.get("/catalog/products")).json()["data"]) == 5
        page = (await http.get("/metrics")).text
        failed = sum(float(line.split()[1]) for line in page.splitlines() if line.startswith("email_send_failed{"))
        assert failed == here.truth.counters[series("bitloot_email_fail_total")] > 0
        here.app.metrics.hold()
        await here.app.restart()
        assert "email_send_failed" not in (await http.get("/metrics")).text


def _one(connection: psycopg.Connection, query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None
