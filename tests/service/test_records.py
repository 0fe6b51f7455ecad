"""Lists of records through the installed command: filters, pages, plans, and nothing of a customer in full."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from opsctl.cli import cli
from opslib.areas import records
from opslib.areas.queries import NAMED, SAMPLE
from opslib.areas.records import LISTINGS
from opslib.contract import adapter
from opslib.contract.check import scanned
from opslib.errors import ConfigError, OpsError

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
STATUSES = ("created", "waiting", "paid", "fulfilled", "underpaid")
ORDERS = 60


@pytest.fixture
def staff(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The DSN of a member of ops_staff, which is what the command finds in the environment."""
    name = f"t_staff_{uuid4().hex[:8]}"
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {name} LOGIN IN ROLE ops_staff".encode())
        dsn = make_conninfo(database, user=name)
        monkeypatch.setenv("DATABASE_URL", dsn)
        monkeypatch.setenv("PGTZ", "Asia/Tokyo")
        yield dsn
        owner.execute(f"DROP ROLE {name}".encode())


@pytest.fixture
def shop(database: str) -> Iterator[psycopg.Connection]:
    """A shop with a few of everything: three orders a minute at the very same time."""
    with psycopg.connect(database, autocommit=True) as app:
        for n in range(ORDERS):
            at = (NOON + timedelta(minutes=n // 3)).replace(tzinfo=None)
            row = app.execute(
                """INSERT INTO orders (email, status, "totalCrypto", "createdAt", "updatedAt", "kinguinReservationId")
                   VALUES (%s, %s, %s, %s, %s, %s) RETURNING id""",
                (f"anna{n % 4}@example.com", STATUSES[n % 5], n, at, at, f"KGN-{n}" if n % 10 == 0 else None),
            ).fetchone()
            assert row
            app.execute(
                """INSERT INTO payments ("orderId", "externalId", status, "priceAmount", "createdAt")
                   VALUES (%s, %s, %s, %s, %s)""",
                (row[0], f"ext-{n}", ("waiting", "finished")[n % 2], n, at),
            )
            error = {"error": "Order NOT found for anna@example.com"} if n % 6 == 0 else {"success": True}
            app.execute(
                """INSERT INTO webhook_logs ("externalId", "webhookType", payload, "signatureValid", processed, result,
                       "orderId", "createdAt") VALUES (%s, %s, '{}', true, %s, %s, %s, %s)""",
                (f"ext-{n}", ("nowpayments_ipn", "kinguin_order_status")[n % 2], n % 6 != 0, Jsonb(error), row[0], at),
            )
        app.execute(
            """INSERT INTO users (email, role, "isSuspended", "createdAt")
               SELECT 'u' || n || '@example.com', (ARRAY['user','admin'])[1 + n %% 2]::users_role_enum, n %% 3 = 0,
                      %s::timestamp + n * interval '1 minute' FROM generate_series(1, 9) n""",
            (NOON.replace(tzinfo=None),),
        )
        app.execute(
            """INSERT INTO user_sessions ("userId", "refreshTokenHash", "expiresAt", "isRevoked")
               SELECT id, 'hash-' || email, %s, "isSuspended" FROM users""",
            (NOON,),
        )
        app.execute(
            """INSERT INTO audit_logs ("adminUserId", action, target, payload, details)
               SELECT id, 'admin.products.inventory.create', 'product:1', '{"items": ["PLAIN-KEY"]}', 'PLAIN-KEY'
               FROM users WHERE role = 'admin'"""
        )
        yield app


def run(*arguments: str, code: int = 0) -> Any:
    """What the command says in JSON."""
    ended = CliRunner().invoke(cli, [*arguments, "--json"])
    if code:
        assert ended.exit_code == code or (isinstance(ended.exception, OpsError) and ended.exception.exit_code == code)
        return None
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


@pytest.mark.usefixtures("staff", "shop")
@pytest.mark.parametrize("name", LISTINGS)
def test_pages_hold_every_row_once_newest_first(name: str, staff: str) -> None:
    """By keys, by offsets, and all at once it is the same list, though rows share their time."""
    listing = LISTINGS[name]
    with records.connect(staff) as connection:
        whole = records.page(connection, listing, {}, limit=100)
        assert whole.next is None
        assert whole.rows
        times = [row[listing.time] for row in whole.rows]
        assert times == sorted(times, reverse=True)
        walked, after = [], None
        while True:
            page = records.page(connection, listing, {}, limit=7, after=after)
            walked += page.rows
            if (after := page.next) is None:
                break
        ids = [row[listing.id] for row in whole.rows]
        assert [row[listing.id] for row in walked] == ids
        assert [row[listing.id] for row in records.page(connection, listing, {}, limit=7, offset=5).rows] == ids[5:12]


@pytest.mark.usefixtures("staff", "shop")
def test_filters_of_orders() -> None:
    """Status, address, from and to, alone and together."""
    every = run("orders", "list", "--limit", "100")
    assert len(every) == ORDERS
    assert list(every[0])[:5] == ["order_id", "email", "status", "total", "created_at"]
    assert {row["status"] for row in run("orders", "list", "--status", "paid")} == {"paid"}
    of_anna = run("orders", "list", "--email", "anna1@example.com", "--limit", "100")
    assert {row["total"] % 4 for row in of_anna} == {1}
    assert len(of_anna) == ORDERS / 4
    assert run("orders", "list", "--email", "ANNA1@example.com") == run("orders", "list", "--email", "anna1@%") == []
    both = run("orders", "list", "--email", "anna1@example.com", "--status", "waiting", "--from", "2026-01-01T12:05Z")
    assert [row["total"] for row in both] == [41, 21]
    span = run("orders", "list", "--from", "2026-01-01T12:01Z", "--to", "2026-01-01 12:02")
    assert sorted(row["total"] for row in span) == [3, 4, 5]


@pytest.mark.usefixtures("staff", "shop")
def test_filters_of_payments_webhooks_and_reservations() -> None:
    """Each by what the application's admins know."""
    assert {row["status"] for row in run("payments", "list", "--status", "finished")} == {"finished"}
    (one,) = run("payments", "list", "--external", "ext-7")
    assert run("payments", "list", "--order", one["order_id"], "--provider", "nowpayments") == [one]
    assert run("payments", "list", "--order", one["order_id"], "--provider", "kinguin") == []
    run("payments", "list", "--status", "nonsense", code=2)
    run("payments", "list", "--order", "nonsense", code=2)
    errors = run("webhooks", "list", "--outcome", "error", "--error", "not FOUND")
    assert len(errors) == ORDERS / 6
    assert {row["error"] for row in errors} == {"Order NOT found for a***@example.com"}
    assert run("webhooks", "list", "--error", "anna@example") == []
    (event,) = run("webhooks", "list", "--external", "ext-7")
    assert run("webhooks", "list", "--order", event["order_id"]) == [event]
    assert {row["event_type"] for row in run("webhooks", "list", "--provider", "kinguin")} == {"kinguin_order_status"}
    assert {row["provider"] for row in run("webhooks", "list", "--type", "nowpayments_ipn")} == {"nowpayments"}
    assert len(run("reservations", "list", "--place", "kinguin", "--state", "reserved")) == ORDERS / 10
    assert run("reservations", "list", "--place", "inventory") == []


@pytest.mark.usefixtures("staff", "shop")
def test_users_sessions_and_the_audit_show_nothing_secret() -> None:
    """No address, no token, no product key; yet found by the address."""
    assert len(run("users", "list", "--role", "admin", "--suspended")) == 2
    (user,) = run("users", "list", "--email", "u3@example.com")
    assert user["email"] == "u***@example.com"
    (session,) = run("sessions", "list", "--user", user["user_id"])
    assert session["revoked"] is True
    assert run("sessions", "list", "--user", user["user_id"], "--not-revoked") == []
    entries = run("app-audit", "list", "--action", "admin.products.inventory.create")
    assert len(entries) == 5
    assert run("app-audit", "list", "--admin", entries[0]["admin_user_id"], "--target", "product:1") == entries[:1]
    shown = json.dumps([run(name, "list", "--limit", "100") for name in LISTINGS])
    assert not [word for word in ("PLAIN-KEY", "hash-", "anna@", "anna1@", "u3@") if word in shown]


@pytest.mark.usefixtures("staff", "shop")
def test_a_page_in_csv_and_for_people() -> None:
    """The same rows; a person also reads where to go on."""
    ended = CliRunner().invoke(cli, ["orders", "list", "--limit", "2", "--csv"])
    head, *rows = csv.reader(io.StringIO(ended.stdout))
    assert (head[0], len(rows)) == ("order_id", 2)
    shown = CliRunner().invoke(cli, ["orders", "list", "--limit", "2"])
    assert rows[0][0] in shown.stdout
    key = shown.stderr.split("--after ")[1].strip()
    assert key.endswith(rows[1][0])
    assert run("orders", "list", "--after", key, "--limit", "1") == run(
        "orders", "list", "--offset", "2", "--limit", "1"
    )
    for wrong in (("--limit", "101"), ("--after", key, "--offset", "1"), ("--from", "soon"), ("--after", "x/y")):
        run("orders", "list", *wrong, code=2)


@pytest.mark.parametrize("name", [query.name for query in NAMED.values() if " -- if: " in query.full])
def test_every_filter_leaves_an_index_to_go_by(name: str, database: str) -> None:
    """Each alone, and all together: none makes the plan read a big table."""
    query = NAMED[name]
    if query.database != "app":
        return
    values = {
        **SAMPLE,
        "from": NOON,
        "to": NOON,
        "after_at": NOON,
        "after_id": str(uuid4()),
        "order": str(uuid4()),
        "state": "sold",
        "user": str(uuid4()),
        "admin": str(uuid4()),
        "status": "waiting",
        "external": "4711",
        "outcome": "ok",
        "type": "nowpayments_ipn",
        "error": "x",
        "place": "kinguin",
        "role": "user",
        "suspended": True,
        "revoked": False,
        "action": "x",
        "target": "y",
    }
    filters = [line.rsplit("-- if: ", 1)[1] for line in query.full.splitlines() if " -- if: " in line]
    with psycopg.connect(database, autocommit=True) as app:
        app.execute("SET enable_seqscan = off")
        for chosen in (*([each] for each in filters), filters):
            rows = app.execute(f"EXPLAIN (FORMAT JSON) {query.asking(chosen)}".encode(), values).fetchall()
            assert not scanned(rows[0][0]) & adapter.load().big, (chosen, rows)


def test_a_key_is_a_time_and_an_id() -> None:
    """Written and read back; anything else is refused."""
    key = records.write_key(NOON, "8c1f")
    assert records.read_key(key) == ("2026-01-01T12:00:00Z", "8c1f")
    assert records.read_key(records.write_key(None, "a/b")) == ("-infinity", "a/b")
    for wrong in ("", "8c1f", "2026-01-01T12:00:00/8c1f", "2026-01-01T12:00:00Z/", "soon/8c1f"):
        with pytest.raises(ConfigError, match="no key"):
            records.read_key(wrong)


def test_whole_addresses_are_for_super_alone(database: str, staff: str, shop: psycopg.Connection) -> None:
    """The functions refuse staff; whoever owns them reads the address."""
    row = shop.execute("SELECT id::text, email FROM orders LIMIT 1").fetchone()
    assert row
    with psycopg.connect(staff) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT ops_view.order_email(%s)", row[:1])
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("SET ROLE ops_super")
        assert owner.execute("SELECT ops_view.order_email(%s)", row[:1]).fetchone() == row[1:]


@pytest.mark.usefixtures("staff", "shop")
def test_unmasking_takes_super_and_a_reason_and_is_remembered(
    database: str, staff: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Staff is refused, super without a reason too; each with an audit event. Lists, stories and exports alike."""
    order = run("orders", "list", "--limit", "1")[0]["order_id"]
    run("orders", "list", "--unmask", "--reason", "a refund", code=3)
    name = f"t_super_{uuid4().hex[:8]}"
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {name} LOGIN IN ROLE ops_super".encode())
        try:
            monkeypatch.setenv("DATABASE_URL", make_conninfo(database, user=name))
            run("orders", "list", "--unmask", code=3)
            shown = run("orders", "list", "--unmask", "--reason", "a refund", "--limit", "100")
            assert {row["email"] for row in shown} == {f"anna{n}@example.com" for n in range(4)}
            assert run("users", "list", "--unmask", "--reason", "x")[0]["email"] == "u9@example.com"
            story = run("orders", "show", order, "--unmask", "--reason", "x")
            assert "***" not in story["order"]["email"]
            ended = CliRunner().invoke(cli, ["export", "orders", "--unmask", "--reason", "x"])
            assert ended.stdout.count("@example.com") == ORDERS
            assert "***" not in ended.stdout
            events = owner.execute(
                "SELECT outcome, count(*) FROM ops.audit_events WHERE action = 'records.unmask' GROUP BY 1"
            ).fetchall()
            assert dict(events) == {"refused": 2, "intent": 4, "allowed": 4}
            assert "anna" not in str(owner.execute("SELECT * FROM ops.audit_events").fetchall())
        finally:
            owner.execute(f"DROP ROLE {name}".encode())
    monkeypatch.setenv("DATABASE_URL", staff)
    assert run("orders", "list", "--limit", "1")[0]["email"] == "a***@example.com"
