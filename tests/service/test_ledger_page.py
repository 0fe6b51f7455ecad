"""What the ledger exporter puts on the page, from the rows in the tables to the last label."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID, uuid4

import psycopg
import pytest

from exporters import ledger, reconciliation
from opslib import settings
from opslib.areas import app_totals
from opslib.areas import ledger as areas_ledger
from opslib.collector import Collector
from opslib.contract import contract
from opslib.spec import Sample

Page = Mapping[str, tuple[float, ...]]
Shop = psycopg.Connection[tuple[Any, ...]]
EMPTY = {
    'bitloot_webhook_total{provider="nowpayments",outcome="ok"}',
    'bitloot_webhook_total{provider="nowpayments",outcome="duplicate"}',
    'bitloot_webhook_total{provider="nowpayments",outcome="invalid"}',
    'bitloot_webhook_total{provider="nowpayments",outcome="error"}',
    'bitloot_webhook_total{provider="kinguin",outcome="ok"}',
    'bitloot_webhook_total{provider="kinguin",outcome="error"}',
    'bitloot_ipn_total{status="ok"}',
    'bitloot_ipn_total{status="invalid"}',
    "bitloot_underpaid_total{}",
    'bitloot_email_bounce_total{type="hard"}',
    'bitloot_email_bounce_total{type="soft"}',
    'bitloot_email_bounce_total{type="complaint"}',
    "bitloot_paid_to_fulfilled_seconds{}",
}


@pytest.fixture
def shop(database: str) -> Iterator[Shop]:
    """A connection of the application's."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@asynccontextmanager
async def running(database: str, **more: str) -> AsyncIterator[Callable[[], Awaitable[Page]]]:
    """Every collector of the subject, started; each call reads all of them once and gives the page."""
    loaded = settings.load({"DATABASE_URL": database, "OPS_LEDGER_SETTLE_SECONDS": "1", **more})
    collectors = ledger.collectors(loaded)
    for collector in collectors:
        await collector.start()

    async def read() -> Page:
        return named([sample for collector in collectors for sample in await samples(collector)])

    try:
        yield read
    finally:
        for collector in collectors:
            await collector.stop()


async def samples(collector: Collector) -> list[Sample]:
    """Gauges and counts of one."""
    gauges = await collector.collect()
    return [*gauges, *collector.counts()]


def named(page: Sequence[Sample]) -> Page:
    """By series, each there once."""
    found = {}
    for sample in page:
        labels = ",".join(f'{k}="{v}"' for k, v in zip(sample.metric.labels, sample.labels, strict=True))
        found[f"{sample.metric.name}{{{labels}}}"] = sample.value
    assert len(found) == len(page)
    return found


def counters(page: Page) -> Page:
    """What is not zero of the counters."""
    return {name: value for name, value in page.items() if "_total" in name and value != (0,)}


def webhook(shop: Shop, kind: str, result: Any, *, valid: bool = True, done: bool = False, **more: Any) -> UUID:
    """A webhook row a minute old, or `age` seconds."""
    values = {"order": None, "status": None, "age": 60, "payload": {}, "external": uuid4().hex, **more}
    row = shop.execute(
        """INSERT INTO webhook_logs ("externalId", "webhookType", payload, "signatureValid", processed, result,
                                     "orderId", "paymentStatus", "createdAt")
           VALUES (%(external)s, %(kind)s, %(payload)s, %(valid)s, %(done)s, %(result)s,
                   %(order)s, %(status)s, now() - make_interval(secs => %(age)s)) RETURNING id""",
        {
            **values,
            "kind": kind,
            "valid": valid,
            "done": done,
            "result": json.dumps(result),
            "payload": json.dumps(values["payload"]),
        },
    ).fetchone()
    assert row
    return cast(UUID, row[0])


def order(shop: Shop, status: str, *, value: float = 10, days: float = 0.01, payment: str | None = None) -> UUID:
    """An order, created and last changed so many days ago, with a payment row of that status if any."""
    row = shop.execute(
        """INSERT INTO orders (email, status, "totalCrypto", "createdAt", "updatedAt")
           SELECT 'a@example.com', %s, %s, at, at FROM (SELECT now() - make_interval(secs => %s) AS at) t
           RETURNING id""",
        (status, value, days * 86_400),
    ).fetchone()
    assert row
    if payment is not None:
        shop.execute(
            'INSERT INTO payments ("orderId", "externalId", status) VALUES (%s, %s, %s)',
            (row[0], f"p{row[0]}", payment),
        )
    return cast(UUID, row[0])


def deliver(shop: Shop, order_id: UUID, *, age: float) -> None:
    """One more key of an order."""
    shop.execute(
        """WITH item AS (INSERT INTO order_items ("orderId", "productId") VALUES (%s, 'x') RETURNING id)
           INSERT INTO keys ("orderItemId", "createdAt") SELECT id, now() - make_interval(secs => %s) FROM item""",
        (order_id, age),
    )


async def test_what_has_not_happened_is_zero_and_what_nobody_can_know_is_absent(database: str) -> None:
    """Kinguin's duplicates and e-mail failures leave no row: without the app exporter there is no number, not 0."""
    async with running(database) as read:
        page = await read()
        assert {name for name in page if not name.startswith(("bitloot_reconciliation", "ops_"))} == EMPTY
        assert counters(page) == {}
        assert page["ops_contract_ok{}"] == (1,)


async def test_each_call_under_its_provider_and_outcome(database: str, shop: Shop) -> None:
    """Rows and the application's own counts meet in one family; `ipn` is NOWPayments' alone; twice changes nothing."""
    webhook(shop, "nowpayments_ipn", {"success": True}, done=True)
    changed = webhook(shop, "nowpayments_ipn", {"success": False, "message": "Processing"}, valid=False)
    webhook(shop, "nowpayments_ipn", {"error": "Invalid webhook signature"}, valid=False)
    webhook(shop, "nowpayments_ipn", {"error": "Order not found"})
    for _ in range(2):
        webhook(shop, "kinguin_order_status", None)
    webhook(shop, "stripe_event", {}, done=True)
    for series, value in (
        ([app_totals.WEBHOOK.name, "kinguin", "duplicate"], 5),
        ([app_totals.EMAIL_FAIL.name], 3),
        (["bitloot_app_restarts_total"], 9),
    ):
        shop.execute(
            "INSERT INTO ops.exporter_series VALUES ('app/shop', %s, %s), ('app/other', %s, '[77]')",
            (json.dumps(series), json.dumps([value]), json.dumps(series)),
        )
    expected = {
        'bitloot_webhook_total{provider="nowpayments",outcome="ok"}': (1,),
        'bitloot_webhook_total{provider="nowpayments",outcome="duplicate"}': (1,),
        'bitloot_webhook_total{provider="nowpayments",outcome="invalid"}': (1,),
        'bitloot_webhook_total{provider="nowpayments",outcome="error"}': (1,),
        'bitloot_webhook_total{provider="kinguin",outcome="ok"}': (2,),
        'bitloot_webhook_total{provider="kinguin",outcome="duplicate"}': (5,),
        'bitloot_webhook_total{provider="other",outcome="ok"}': (1,),
        'bitloot_ipn_total{status="ok"}': (1,),
        'bitloot_ipn_total{status="invalid"}': (1,),
        "bitloot_email_fail_total{}": (3,),
    }
    async with running(database, OPS_EXPORTER_NAME="shop") as read:
        for _ in range(2):
            assert counters(await read()) == expected
        shop.execute(
            """UPDATE webhook_logs SET "signatureValid" = true, processed = true, result = '{"success": true}'
               WHERE id = %s""",
            (changed,),
        )
        reclassified = 'bitloot_webhook_reclassified_total{provider="nowpayments",from="duplicate",to="ok"}'
        for _ in range(2):
            assert counters(await read()) == {**expected, reclassified: (1,)}


async def test_nothing_of_a_family_shows_before_its_back_fill_ends(
    database: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A total that still grows by history would be an increase that never happened."""
    webhook(shop, "nowpayments_ipn", {"success": True}, done=True, age=7200)
    monkeypatch.setattr(areas_ledger, "BACKFILL_SECONDS", 0.0)
    loaded = settings.load({"DATABASE_URL": database})
    webhooks = ledger.collectors(loaded)[0]
    await webhooks.start()
    await webhooks.collect()
    assert (list(webhooks.counts()), webhooks.ready()) == ([], False)
    monkeypatch.undo()
    await webhooks.collect()
    assert counters(named(list(webhooks.counts())))['bitloot_ipn_total{status="ok"}'] == (1,)
    assert webhooks.ready()
    await webhooks.stop()


async def test_paid_to_fulfilled_in_its_bucket(database: str, shop: Shop) -> None:
    """From the notification to the last key: on a bound it is in that bucket; without a notification in none."""
    for seconds in (15, 40):
        with shop.transaction():  # in which now() stands still
            paid = order(shop, "fulfilled", payment="finished")
            at: dict[str, Any] = {"order": paid, "status": "finished", "done": True}
            webhook(shop, "nowpayments_ipn", {"success": True}, age=200, **at)
            deliver(shop, paid, age=200 - 1)
            deliver(shop, paid, age=200 - seconds)
    deliver(shop, order(shop, "fulfilled", payment="finished"), age=10)
    deliver(shop, order(shop, "paid", payment="finished"), age=10)
    async with running(database) as read:
        for _ in range(2):
            *counts, total = (await read())["bitloot_paid_to_fulfilled_seconds{}"]
            bounds = [*ledger.PAID_TO_FULFILLED.buckets, float("inf")]
            assert {bound: n for bound, n in zip(bounds, counts, strict=True) if n} == {15: 1, 60: 1}
            assert total == pytest.approx(55, abs=0.1)


async def test_each_problem_with_its_number_age_and_value_and_nothing_that_is_none(database: str, shop: Shop) -> None:
    """Beside every order in trouble stands one that looks like it and is not."""
    order(shop, "paid", value=3, days=2, payment="finished")
    order(shop, "paid", value=4, days=1, payment="finished")
    order(shop, "waiting", value=5, payment="finished")
    order(shop, "waiting", value=99, payment="waiting")
    order(shop, "fulfilled", value=6, days=6)
    order(shop, "fulfilled", value=99, days=8)
    fine = order(shop, "fulfilled", value=99, payment="finished")
    for status, claimed, again in (("expired", "finished", "waiting"), ("expired", "waiting", "waiting")):
        late = order(shop, status, value=7, payment="failed")
        ipn: dict[str, Any] = {"external": f"p{late}", "order": late}
        webhook(shop, "nowpayments_ipn", {"success": True}, done=True, status=again, **ipn)
        dropped = {"success": False, "message": "Processing"}
        webhook(shop, "nowpayments_ipn", dropped, valid=False, payload={"payment_status": claimed}, **ipn)
    for status in ("reserved", "sold"):
        shop.execute(
            """INSERT INTO product_inventory ("productId", "itemDataEncrypted", "encryptionIv", "authTag", status,
                                              "reservedForOrderId", "reservedAt", cost)
               VALUES (gen_random_uuid(), '', '', '', %s, %s, now() - interval '1 hour', 2.5)""",
            (status, fine),
        )
    async with running(database) as read:
        page = await read()
    found = {
        problem: tuple(
            page.get(f'bitloot_reconciliation_{part}{{problem="{problem}"}}', (None,))[0]
            for part in ("orders", "value_eur", "oldest_age_seconds")
        )
        for problem in reconciliation.PROBLEMS
    }
    assert {problem: (count, value) for problem, (count, value, _) in found.items()} == {
        "paid_unfulfilled": (2, 7),
        "payment_finished_order_unmoved": (1, 5),
        "ipn_dropped": (1, 7),
        "reservation_leaked": (1, 2.5),
        "fulfilled_without_payment": (1, 6),
    }
    assert found["paid_unfulfilled"][2] == pytest.approx(2 * 86_400, abs=60)
    assert found["fulfilled_without_payment"][2] == pytest.approx(6 * 86_400, abs=60)
    assert found["reservation_leaked"][2] == pytest.approx(3600, abs=60)
    assert page['bitloot_orders{status="paid"}'] == (2,)
    assert page['bitloot_payments{status="finished"}'] == (4,)


async def test_a_suspended_contract_is_said(database: str) -> None:
    """By the one collector that needs no view."""
    loaded = settings.load({"DATABASE_URL": database})
    collector = next(each for each in ledger.collectors(loaded) if each.name == "ledger/contract")
    await collector.start()
    assert named(await samples(collector))["ops_contract_ok{}"] == (1,)
    contract.suspend(database)
    assert named(await samples(collector))["ops_contract_ok{}"] == (0,)
    contract.apply(database)
    assert named(await samples(collector))["ops_contract_ok{}"] == (1,)
    await collector.stop()
