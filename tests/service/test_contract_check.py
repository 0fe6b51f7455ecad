"""`opsctl contract check` proves the contract against a live database, and names each thing that can go wrong."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from opslib.areas.queries import NamedQuery
from opslib.contract import adapter, check, contract

IPN_ROW = """INSERT INTO webhook_logs ("externalId", "webhookType", payload, "paymentStatus") VALUES """


@pytest.fixture
def app(database: str) -> Iterator[psycopg.Connection]:
    """The application's own connection to a database where the contract stands."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def findings(database: str) -> list[str]:
    """What `opsctl contract check` says."""
    return [str(finding) for finding in check.check(database)]


# What happens to the database, and how the line begins that names it.
FAULTS = [
    (
        'ALTER TABLE orders RENAME COLUMN "totalCrypto" TO "totalEur"',
        "view orders: column o.totalCrypto does not exist; adapt it in bitloot.sql",
    ),
    ("ALTER TABLE payments RENAME TO charges", 'view payments: relation "public.payments" does not exist'),
    ("ALTER TABLE orders RENAME email TO mail", "function order_ids_by_email: column"),
    ("DROP VIEW ops_view.flags", "views: view flags is missing; run `opsctl contract apply`"),
    ("ALTER VIEW ops_view.orders RENAME COLUMN status TO state", "views: column orders.status is missing"),
    (
        "INSERT INTO orders (email, status) VALUES ('a@b.example', 'on_hold')",
        "orders.status: the application has a new value, 'on_hold'",
    ),
    (
        "ALTER TYPE payments_status_enum ADD VALUE 'disputed'",
        "payments.status: the application has a new value, 'disputed'",
    ),
    (
        "ALTER TYPE email_bounces_type_enum ADD VALUE 'blocked'",
        "email_events.type: the application has a new value, 'blocked'",
    ),
    (
        IPN_ROW + "('1', 'stripe_event', '{}', NULL)",
        "webhook_events.event_type: the application has a new value, 'stripe_event'",
    ),
    (
        IPN_ROW + "('1', 'nowpayments_ipn', '{}', 'wrong_asset')",
        "webhook_events.payment_status: the application has a new value, 'wrong_asset'",
    ),
    ('DROP INDEX "IDX_orders_status_created"', "query paid_unfulfilled: reads all of orders"),
    ("GRANT SELECT ON payments TO PUBLIC", "ops_grafana: reads public.payments"),
    ("GRANT UPDATE (email) ON users TO ops_exporter", "ops_exporter: writes public.users"),
    (
        "REVOKE SELECT ON ops_view.orders FROM ops_grafana",
        "ops_grafana: cannot read ops_view.orders; run `opsctl contract apply`",
    ),
    ("GRANT SELECT ON ops.schema_migrations TO ops_staff", "ops_staff: reads ops.schema_migrations"),
    ("GRANT EXECUTE ON FUNCTION ops.operator_add TO ops_staff", "ops_staff: calls ops.operator_add"),
    ("REVOKE EXECUTE ON FUNCTION ops.operator_add FROM ops_super", "ops_super: cannot call ops.operator_add"),
    ("GRANT EXECUTE ON FUNCTION ops.ledger_purge TO PUBLIC", "ops_grafana: calls ops.ledger_purge"),
    ("REVOKE EXECUTE ON FUNCTION ops.ledger_purge FROM ops_exporter", "ops_exporter: cannot call ops.ledger_purge"),
    ("DROP TABLE ops.contract_state", "state: could not be checked: relation"),
    ("DROP TABLE email_bounces CASCADE", "email_events.type: could not be checked"),
]


@pytest.mark.parametrize(("statement", "said"), FAULTS, ids=[said.split(";")[0] for _, said in FAULTS])
def test_fault_is_named(database: str, app: psycopg.Connection, statement: str, said: str) -> None:
    """Each fault has its own line, with what to do."""
    app.execute(statement)
    found = findings(database)
    assert any(finding.startswith(said) for finding in found), found


def test_scan_by_a_named_query_is_named(database: str) -> None:
    """A query that converts the column instead of the parameter is named; no query at all is suspicious too."""
    slow = NamedQuery("slow", "app", "", "SELECT id FROM ops_view.payments WHERE created_at > %(since)s")
    (finding,) = check.check(database, named={"slow": slow})
    assert (finding.where, finding.problem) == ("query slow", "reads all of payments")
    assert [finding.where for finding in check.check(database, named={})] == ["plans"]


def test_sound_on_a_full_database(database: str, app: psycopg.Connection) -> None:
    """With rows and statistics the plans are sound too, and finding every status reads an index, not the table."""
    app.execute(
        """INSERT INTO orders (email, status, "createdAt")
           SELECT n, (ARRAY['paid', 'fulfilled', 'expired'])[1 + n % 3], now() - n * interval '1 min'
           FROM generate_series(1, 20000) n"""
    )
    app.execute(
        """INSERT INTO webhook_logs ("externalId", "webhookType", payload, processed, "createdAt")
           SELECT n, (ARRAY['nowpayments_ipn', 'kinguin_order_status'])[1 + n % 2], '{}', n % 3 = 0,
                  now() - n * interval '1 min' FROM generate_series(1, 20000) n"""
    )
    app.execute("VACUUM ANALYZE orders, webhook_logs")
    assert findings(database) == []
    bitloot = adapter.load()
    for block in bitloot.of("values"):
        plan = app.execute(f"EXPLAIN (FORMAT JSON) {block.sql}").fetchone()
        assert plan
        assert not check.scanned(plan[0]) & bitloot.big, block.name


# A filter on the raw columns for each of the application's indexes.
FILTERS = [
    "orders WHERE status = 'paid' AND created_at_utc > '2026-01-01'",
    "orders WHERE user_id = '00000000-0000-4000-8000-000000000000'",
    "payments WHERE status_native = 'finished'",
    "payments WHERE created_at_utc > '2026-01-01'",
    "payments WHERE order_id = '00000000-0000-4000-8000-000000000000'",
    "payments WHERE external_id = '1'",
    "webhook_events WHERE event_type = 'nowpayments_ipn' AND processed AND created_at_utc > '2026-01-01'",
    "webhook_events WHERE external_id = '1'",
    "webhook_events WHERE order_id = '00000000-0000-4000-8000-000000000000'",
    "deliveries WHERE order_item_id = '00000000-0000-4000-8000-000000000000'",
    "deliveries WHERE created_at_utc > '2026-01-01'",
    "email_events WHERE bounced_at_utc > '2026-01-01'",
    "email_events WHERE type_native = 'hard' AND created_at_utc > '2026-01-01'",
    "users WHERE id = '00000000-0000-4000-8000-000000000000'",
    "sessions WHERE user_id = '00000000-0000-4000-8000-000000000000'",
    "sessions WHERE expires_at > now()",
    "app_audit WHERE action = 'users.update' AND created_at_utc > '2026-01-01'",
    "app_audit WHERE admin_user_id = '00000000-0000-4000-8000-000000000000'",
    "reservations WHERE order_status = 'failed' AND place = 'kinguin'",
]


@pytest.mark.parametrize("filter_", FILTERS)
def test_views_hide_no_index(app: psycopg.Connection, filter_: str) -> None:
    """Each index of the application serves a filter on the raw column of its view."""
    app.execute("SET enable_seqscan = off")
    plan = app.execute(f"EXPLAIN (FORMAT JSON) SELECT * FROM ops_view.{filter_}").fetchone()
    assert plan
    assert check.scanned(plan[0]) & adapter.load().big == set()


def test_locked_table_is_a_finding(database: str, app: psycopg.Connection) -> None:
    """While the application migrates, what cannot be checked is not called good, and we do not wait for it."""
    with app.transaction():
        app.execute("LOCK TABLE webhook_logs IN ACCESS EXCLUSIVE MODE")
        found = findings(database)
    for part in ("adapter", "values", "plans"):
        assert (
            f"{part}: could not be checked: a table stayed locked; run this again when the migration is over" in found
        )


def test_write_function_missing_or_changed_is_found(database: str) -> None:
    """A function of `ops_app` that is gone, or trusts its caller's search_path, is named; apply mends both."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("DROP FUNCTION ops_app.purge_sessions(integer)")
        owner.execute("ALTER FUNCTION ops_app.purge_webhook_logs(date, text[]) RESET search_path")
        found = "\n".join(str(finding) for finding in check.check(database))
        assert "functions: ops_app.purge_sessions(integer) is missing; run `opsctl contract apply`" in found
        assert "ops_app.purge_webhook_logs(date, text[]) is not SECURITY DEFINER with a search_path of its own" in found
        contract.apply(database)
        assert check.check(database) == []
        contract.suspend(database)
        assert owner.execute("SELECT to_regnamespace('ops_app')").fetchone() == (None,)
        assert contract.apply(database).findings == ()


def test_write_function_that_no_longer_fits_is_named(database: str) -> None:
    """The application renamed a column a write function uses: check says so before anybody calls it."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute('ALTER TABLE user_sessions RENAME COLUMN "expiresAt" TO ends')
    found = [str(finding) for finding in check.check(database)]
    assert any(line.startswith("write purge_sessions: ") and "expiresAt" in line for line in found), found
