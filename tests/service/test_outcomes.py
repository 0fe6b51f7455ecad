"""Every kind of row the application leaves behind for a webhook has exactly one outcome, final and settled or not."""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

IPN = "nowpayments_ipn"


class Kind(NamedTuple):
    """One kind of row and what the view must say of it."""

    columns: dict[str, Any]
    provider: str = "nowpayments"
    outcome: str = "ok"
    final: bool = True
    shown: dict[str, Any] = {}  # noqa: RUF012 - never changed


PROCESSING = {"success": False, "message": "Processing"}
KINDS = {
    "ok": Kind(
        {"signatureValid": True, "processed": True, "paymentStatus": "finished", "result": {"success": True}},
        shown={"payment_status": "finished", "error": None},
    ),
    "ok although an old attempt left an error": Kind(
        {"signatureValid": True, "processed": True, "result": {"success": True, "error": "retried"}},
    ),
    "bad signature": Kind(
        {"result": {"success": False, "error": "Invalid webhook signature"}},
        outcome="invalid",
        shown={"error": "Invalid webhook signature"},
    ),
    "in flight, duplicate or lost": Kind({"result": PROCESSING}, outcome="duplicate", final=False),
    "unknown order": Kind(
        {"signatureValid": True, "result": {"error": "Order not found: 7"}},
        outcome="error",
        shown={"error": "Order not found: 7"},
    ),
    "unknown status": Kind(
        {"signatureValid": True, "paymentStatus": "odd", "result": {"error": "Unknown payment status"}},
        outcome="error",
        shown={"payment_status": "odd"},
    ),
    "refused with another text": Kind({"result": {"error": "Signature missing?"}}, outcome="error"),
    "invalid in another way": Kind({"result": {"error": "Invalid webhook signature header"}}, outcome="error"),
    "failed while processing": Kind({"error": "timeout", "result": PROCESSING}, outcome="error"),
    "handler died": Kind({"result": None}, outcome="error", final=False),
    "handler died after the signature": Kind(
        {"signatureValid": True, "result": PROCESSING}, outcome="error", final=False
    ),
    "processed, never verified": Kind({"processed": True, "result": {"success": True}}, outcome="error", final=False),
    "result is no object": Kind({"result": ["Processing"]}, outcome="error", final=False),
    "result's error is null": Kind({"result": {**PROCESSING, "error": None}}, outcome="duplicate", final=False),
    "legacy ok": Kind({"signatureValid": True, "processed": True}),
    "legacy failure": Kind({"error": "connect ECONNREFUSED"}, outcome="error", shown={"error": "connect ECONNREFUSED"}),
    "legacy bad signature": Kind({"error": "Bad SIGNATURE header"}, outcome="invalid"),
    "kinguin order status": Kind(
        {"webhookType": "kinguin_order_status", "signatureValid": True, "paymentStatus": "completed"},
        provider="kinguin",
        shown={"payment_status": "completed", "claimed_status": None},
    ),
    "kinguin product update": Kind(
        {
            "webhookType": "kinguin_product_update",
            "signatureValid": True,
            "processed": True,
            "paymentStatus": "2026-01-01T00:00:00.000Z",
        },
        provider="kinguin",
        shown={"payment_status": None},
    ),
    "another provider": Kind({"webhookType": "stripe_event", "signatureValid": True, "processed": True}, "other"),
}


def insert(connection: psycopg.Connection, columns: dict[str, Any], seconds_ago: float = 0) -> dict[str, Any]:
    """Write a webhook row and read it back through the view."""
    row = {"externalId": "1", "webhookType": IPN, "payload": {"payment_status": "finished"}, **columns}
    row = {name: Jsonb(v) if name in ("payload", "result") and v is not None else v for name, v in row.items()}
    names = ", ".join(f'"{name}"' for name in row)
    connection.execute("TRUNCATE webhook_logs")
    connection.execute(
        f"""INSERT INTO webhook_logs ({names}, "createdAt") VALUES ({", ".join(["%s"] * len(row))},
            now() AT TIME ZONE 'UTC' - %s::interval)""",
        [*row.values(), f"{seconds_ago} seconds"],
    )
    found = connection.cursor(row_factory=dict_row).execute("SELECT * FROM ops_view.webhook_events").fetchone()
    assert found is not None
    return found


def test_every_kind_has_one_outcome(database: str) -> None:
    """Young, only a final row is settled; after a minute every row is; the outcome does not depend on age."""
    with psycopg.connect(database, autocommit=True) as connection:
        for name, kind in KINDS.items():
            for age, settled in ((1, kind.final), (59, kind.final), (61, True)):
                seen = insert(connection, kind.columns, age)
                expected = {"provider": kind.provider, "outcome": kind.outcome, "final": kind.final, "settled": settled}
                assert {key: seen[key] for key in expected} == expected, f"{name}, {age} s old"
                assert {key: seen[key] for key in kind.shown} == kind.shown, name


def test_same_in_any_time_zone(database: str) -> None:
    """A reader's time zone changes neither what is settled nor when it occurred."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SET TIME ZONE 'Asia/Tokyo'")
        seen = insert(connection, {"result": PROCESSING}, 30)
        assert seen["settled"] is False
        age = connection.execute("SELECT now() - occurred_at FROM ops_view.webhook_events").fetchone()
        assert age is not None
        assert 29 < age[0].total_seconds() < 40


@pytest.mark.parametrize(
    ("payload", "claimed"),
    [
        ({"payment_status": "partially_paid", "pay_address": "bc1q"}, "partially_paid"),
        ({"payment_status": "<script>anna@example.com"}, "unknown"),
        ({"payment_status": {"nested": True}}, "unknown"),
        ({"payment_status": None}, None),
        ({}, None),
        ([], None),
    ],
)
def test_claimed_status_is_one_we_know(database: str, payload: Any, claimed: str | None) -> None:
    """Of a payload anybody can send, only a known status word is shown."""
    with psycopg.connect(database, autocommit=True) as connection:
        assert insert(connection, {"payload": payload})["claimed_status"] == claimed
