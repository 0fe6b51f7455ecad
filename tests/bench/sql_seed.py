"""A shop with a past: webhook calls, orders and payments by the million, under the application's own indexes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg

from demo import app_schema
from demo.postgres import PostgresServer
from opslib.contract import contract, migrate

SPACING = timedelta(seconds=0.6)
"""Between two webhook calls: 1,500 of them within the ledger's horizon of fifteen minutes."""

WEBHOOKS = """
INSERT INTO webhook_logs ("externalId", "webhookType", payload, signature, "signatureValid", processed, "orderId",
                          "paymentStatus", result, "createdAt", "updatedAt")
SELECT n, type, jsonb_build_object('payment_id', n, 'payment_status', 'finished', 'pay_address', md5(n::text)),
       md5(n::text), valid, valid AND type <> 'kinguin_order_status', gen_random_uuid(),
       CASE WHEN valid THEN 'finished' END,
       CASE WHEN type <> 'nowpayments_ipn' THEN NULL
            WHEN valid THEN '{{"success": true, "newStatus": "paid"}}'::jsonb
            ELSE '{{"success": false, "error": "Invalid webhook signature"}}'::jsonb END, at, at
FROM generate_series(1, {rows}) n,
     LATERAL (SELECT CASE WHEN n % 10 < 7 THEN 'nowpayments_ipn' WHEN n % 10 < 9 THEN 'kinguin_order_status'
                          ELSE 'kinguin_product_update' END AS type,
                     n % 10 >= 7 OR n % 20 <> 0 AS valid,
                     timestamp '{newest:%Y-%m-%d %H:%M:%S}' - (n - 1) * interval '{spacing} s' AS at) row
"""
ORDERS = """
WITH made AS (
    INSERT INTO orders (email, status, "totalCrypto", "createdAt", "updatedAt")
    SELECT 'buyer-' || n || '@example.com',
           CASE WHEN n % 1000 = 0 THEN 'waiting' WHEN n % 1000 = 1 THEN 'paid' WHEN n % 50 = 2 THEN 'underpaid'
                WHEN n % 3 = 0 THEN 'expired' ELSE 'fulfilled' END, 9.5, at, at
    FROM generate_series(1, {rows}) n,
         LATERAL (SELECT timestamp '{newest:%Y-%m-%d %H:%M:%S}' - n * interval '20 s' AS at) row
    RETURNING id, status, "createdAt"
)
INSERT INTO payments ("orderId", "externalId", status, "createdAt", "updatedAt")
SELECT id, gen_random_uuid(), CASE status WHEN 'fulfilled' THEN 'finished' WHEN 'paid' THEN 'finished'
    WHEN 'underpaid' THEN 'underpaid' WHEN 'waiting' THEN 'waiting' ELSE 'failed' END::payments_status_enum,
    "createdAt", "createdAt" FROM made
"""


def shop(server: PostgresServer, name: str, *, webhooks: int, orders: int) -> str:
    """Make a database `name` with the application's schema, ours, and so many rows; returns its DSN."""
    with server.connect() as admin:
        admin.execute(f"CREATE DATABASE {name}")
    dsn = server.dsn(name)
    app_schema.create(dsn)
    newest = datetime.now(UTC)
    with server.connect(name) as connection:
        _fill(
            connection, "webhook_logs", WEBHOOKS.format(rows=webhooks, newest=newest, spacing=SPACING.total_seconds())
        )
        _fill(connection, "orders, payments", ORDERS.format(rows=orders, newest=newest))
    migrate.up(dsn)
    findings = contract.apply(dsn).findings
    assert not findings, findings
    return dsn


def _fill(connection: psycopg.Connection, tables: str, statement: str) -> None:
    """Rows first and indexes afterwards: a third of the time."""
    found = connection.execute(
        """SELECT format('DROP INDEX public.%%I', i.indexname), i.indexdef FROM pg_indexes i
           WHERE i.tablename = ANY (string_to_array(%s, ', '))
             AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conname = i.indexname)""",
        (tables,),
    ).fetchall()
    for drop, _ in found:
        connection.execute(drop)
    connection.execute("SET maintenance_work_mem = '512MB'")
    connection.execute(statement.encode())
    for _, create in found:
        connection.execute(create)
    connection.execute(f"VACUUM (ANALYZE) {tables}".encode())
