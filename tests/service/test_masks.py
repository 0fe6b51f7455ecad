"""What the views never show: an e-mail in full, a key, a token, an address. Yet one can search by e-mail."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest
from pydantic import BaseModel

from opslib import audit
from opslib.areas import runs
from opslib.audit import Event, Outcome
from tests.service.run_kit import Engine

EMAIL = "Anna.Planted@mail.example"
SECRETS = ("PLANTED-KEY", "planted-token", "203.0.113.77", "Planted/5.0")


class Params(BaseModel):
    """What a job was given: its history shows that."""

    to: str = EMAIL
    token: str = "planted-token"


USER = UUID(int=1)
ORDER = UUID(int=2)


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    """A database with one row in every table, planted with what must not be seen."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (USER, EMAIL))
        connection.execute(
            "INSERT INTO orders (id, email, \"kinguinReservationId\") VALUES (%s, %s, 'r1')", (ORDER, EMAIL)
        )
        connection.execute("INSERT INTO orders (email) VALUES ('someone.else@mail.example')")
        connection.execute(
            'INSERT INTO payments ("orderId", "externalId", "rawPayload") VALUES (%s, \'p\', %s)',
            (ORDER, '"PLANTED-KEY"'),
        )
        connection.execute(
            """INSERT INTO webhook_logs ("externalId", "webhookType", payload, signature, error, "sourceIp")
               VALUES ('w', 'nowpayments_ipn', '{"payment_status": "PLANTED-KEY"}', 'planted-token', %s,
                       '203.0.113.77')""",
            (f"550 <{EMAIL}> refused, tell {EMAIL.replace('@', '%40')} or " + '"' + EMAIL.replace("@", '"@'),),
        )
        connection.execute(
            """INSERT INTO order_items ("orderId", "productId", quantity, "unitPrice", "productSourceType", "signedUrl")
               VALUES (%s, 'p', 1, 1, 'custom', 'PLANTED-KEY')""",
            (ORDER,),
        )
        connection.execute(
            """INSERT INTO keys ("orderItemId", "storageRef", "lastAccessIp", "lastAccessUserAgent")
               VALUES (gen_random_uuid(), 'PLANTED-KEY', '203.0.113.77', 'Planted/5.0')"""
        )
        connection.execute(
            """INSERT INTO product_inventory
               ("productId", "itemDataEncrypted", "encryptionIv", "authTag", "reservedForOrderId")
               VALUES (gen_random_uuid(), 'PLANTED-KEY', 'planted-token', 'planted-token', %s)""",
            (ORDER,),
        )
        connection.execute(
            "INSERT INTO email_bounces (email, type, reason, \"bouncedAt\") VALUES (%s, 'hard', %s, now())",
            (EMAIL, f"mailto:{EMAIL}: unknown"),
        )
        connection.execute(
            """INSERT INTO audit_logs ("adminUserId", action, target, payload, details)
               VALUES (%s, 'users.update', %s, '{"key": "PLANTED-KEY"}', 'PLANTED-KEY')""",
            (USER, f"user:{EMAIL}"),
        )
        connection.execute(
            """INSERT INTO user_sessions
               ("userId", "refreshTokenHash", "deviceInfo", "userAgent", "ipAddress", "expiresAt")
               VALUES (%s, 'planted-token', 'Planted/5.0', 'Planted/5.0', '203.0.113.77', now())""",
            (USER,),
        )
        Engine(connection).declare("tell")
        runs.enqueue(connection, "tell", Params(), triggered_by="anna")
        told = Event("OPS_TOLD", "users.tell", EMAIL, {"to": EMAIL, "token": "planted-token"}, f"{EMAIL} asked for it")
        audit.append(connection, told, Outcome.ALLOWED, error=f"no mailbox {EMAIL}")
        yield connection


def test_no_view_shows_it(connection: psycopg.Connection) -> None:
    """Every column of every row of every view, as text, holds nothing of what was planted."""
    views = connection.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'ops_view'::regnamespace AND relkind = 'v'"
    ).fetchall()
    assert len(views) >= 10
    for (view,) in views:
        rows = connection.execute(f"SELECT v::text FROM {view} v").fetchall()
        assert rows or view == "ops_view.report_subscribers", f"{view} is empty, so this test proves nothing"
        shown = " ".join(text for (text,) in rows).lower()
        local, _, domain = EMAIL.lower().partition("@")
        for secret in (*SECRETS, local, f"{local}%40{domain}"):
            assert secret.lower() not in shown, view


def test_masked_yet_useful(connection: psycopg.Connection) -> None:
    """The first letter and the domain stay; free text stays readable."""
    assert connection.execute("SELECT email_masked FROM ops_view.users").fetchone() == ("A***@mail.example",)
    assert connection.execute("SELECT reason FROM ops_view.email_events").fetchone() == (
        "mailto:A***@mail.example: unknown",
    )
    assert connection.execute("SELECT target FROM ops_view.app_audit").fetchone() == ("user:A***@mail.example",)


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("a@b.example", "a***@b.example"),
        ('"odd@local"@b.example', '"***@b.example'),
        ("no-at-sign", "n***"),
        ("", "***"),
        (None, None),
    ],
)
def test_mask_email(connection: psycopg.Connection, address: str | None, masked: str | None) -> None:
    """Odd addresses are masked too, and nothing stays nothing."""
    assert connection.execute("SELECT ops_view.mask_email(%s)", (address,)).fetchone() == (masked,)


@pytest.mark.parametrize(
    ("said", "masked"),
    [
        ("no address here", "no address here"),
        ("x" * 400, "x" * 300),
        ('to "john doe"@b.example', 'to "john d***@b.example'),
        ("u=jo.hn%40b.example&x", "u***%40b.example&x"),
        ("a@b.example,c@d.example", "a***@b.example,c***@d.example"),
        ("@ alone", "@ alone"),
        (None, None),
    ],
)
def test_mask_text(connection: psycopg.Connection, said: str | None, masked: str | None) -> None:
    """Every address in a text is masked, wherever it stands, and a long text is cut."""
    assert connection.execute("SELECT ops_view.mask_text(%s)", (said,)).fetchone() == (masked,)


def test_search_by_exact_email(connection: psycopg.Connection) -> None:
    """Who knows an address finds its orders and its user; a part of it finds nothing."""
    assert connection.execute("SELECT ops_view.order_ids_by_email(%s)", (EMAIL,)).fetchall() == [(ORDER,)]
    assert connection.execute("SELECT ops_view.user_ids_by_email(%s)", (EMAIL,)).fetchall() == [(USER,)]
    for wrong in ("anna", "%", f"{EMAIL}' OR true --", None):
        assert connection.execute("SELECT ops_view.order_ids_by_email(%s)", (wrong,)).fetchall() == []
        assert connection.execute("SELECT ops_view.user_ids_by_email(%s)", (wrong,)).fetchall() == []
