"""What every adapter must provide: the canonical views with their columns and types, and the functions that write.

Exporters, boards, reports and the CLI read these and nothing else of the application; jobs and actions change the
application's data through the functions of schema `ops_app` and in no other way. `problems` compares the views with
what a database has now; it costs one catalog query (`contract_columns` of `opslib.areas.queries`), so an exporter may
ask every few seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

SCHEMA = "ops_view"
WRITE_SCHEMA = "ops_app"
"""Where an adapter's write functions live: the only way anything of ours changes the application's data."""

ROLES = ("ops_exporter", "ops_grafana", "ops_jobs", "ops_backup", "ops_staff", "ops_super")
"""Every role of ours."""

READERS = ("ops_exporter", "ops_grafana", "ops_jobs", "ops_staff")
"""Roles that read every canonical view."""

Types = frozenset[str]

KEY: Types = frozenset({"uuid", "text", "character varying", "integer", "bigint"})
"""An identifier as the application keeps it, so that its own indexes serve."""
TEXT: Types = frozenset({"text", "character varying"})
NUMBER: Types = frozenset({"numeric"})
COUNT: Types = frozenset({"integer", "bigint"})
FLAG: Types = frozenset({"boolean"})
TIME: Types = frozenset({"timestamp with time zone"})
UTC: Types = frozenset({"timestamp without time zone"})
"""A raw UTC column, for filters."""
NATIVE: Types = frozenset()
"""Whatever type the application has, for filters."""

VIEWS: Mapping[str, Mapping[str, Types]] = MappingProxyType(
    {
        "orders": {
            "id": KEY,
            "email_masked": TEXT,
            "user_id": KEY,
            "status": TEXT,
            "source_type": TEXT,
            "total_eur": NUMBER,
            "reservation_id": TEXT,
            "completion_email_sent": FLAG,
            "created_at": TIME,
            "updated_at": TIME,
            "created_at_utc": UTC,
        },
        "order_items": {
            "id": KEY,
            "order_id": KEY,
            "product_id": KEY,
            "quantity": COUNT,
            "unit_price": NUMBER,
            "source_type": TEXT,
            "created_at": TIME,
        },
        "payments": {
            "id": KEY,
            "order_id": KEY,
            "external_id": KEY,
            "provider": TEXT,
            "status": TEXT,
            "status_native": NATIVE,
            "price_amount": NUMBER,
            "price_currency": TEXT,
            "pay_amount": NUMBER,
            "pay_currency": TEXT,
            "confirmations": COUNT,
            "created_at": TIME,
            "updated_at": TIME,
            "created_at_utc": UTC,
        },
        "webhook_events": {
            "id": KEY,
            "provider": TEXT,
            "event_type": TEXT,
            "external_id": KEY,
            "order_id": KEY,
            "payment_id": KEY,
            "payment_status": TEXT,
            "claimed_status": TEXT,
            "processed": FLAG,
            "signature_valid": FLAG,
            "outcome": TEXT,
            "final": FLAG,
            "settled": FLAG,
            "error": TEXT,
            "attempt_count": COUNT,
            "occurred_at": TIME,
            "updated_at": TIME,
            "created_at_utc": UTC,
        },
        "reservations": {
            "order_id": KEY,
            "place": TEXT,
            "reservation_id": TEXT,
            "state": TEXT,
            "reserved_at": TIME,
            "reserved_at_utc": UTC,
            "order_status": TEXT,
            "cost_eur": NUMBER,
        },
        "deliveries": {
            "id": KEY,
            "order_item_id": KEY,
            "order_id": KEY,
            "created_at": TIME,
            "created_at_utc": UTC,
            "viewed_at": TIME,
            "download_count": COUNT,
        },
        "email_events": {
            "id": KEY,
            "type": TEXT,
            "type_native": NATIVE,
            "email_masked": TEXT,
            "reason": TEXT,
            "occurred_at": TIME,
            "bounced_at_utc": UTC,
            "created_at_utc": UTC,
        },
        "flags": {
            "name": TEXT,
            "enabled": FLAG,
            "description": TEXT,
            "category": TEXT,
            "updated_at": TIME,
            "updated_by_id": KEY,
        },
        "users": {
            "id": KEY,
            "email_masked": TEXT,
            "role": TEXT,
            "email_confirmed": FLAG,
            "suspended": FLAG,
            "last_login_at": TIME,
            "deletion_requested_at": TIME,
            "deleted_at": TIME,
            "created_at": TIME,
            "created_at_utc": UTC,
        },
        "sessions": {
            "id": KEY,
            "user_id": KEY,
            "revoked": FLAG,
            "expires_at": TIME,
            "last_active_at": TIME,
            "created_at": TIME,
        },
        "report_subscribers": {
            "user_id": KEY,
        },
        "app_audit": {
            "id": KEY,
            "admin_user_id": KEY,
            "action": TEXT,
            "target": TEXT,
            "created_at": TIME,
            "created_at_utc": UTC,
        },
    }
)

OPS_VIEWS = frozenset({"audit_log", "job_runs"})
"""Views of `ops_view` over our own tables: a migration makes them, in the ops database; the contract leaves them."""

WRITES: Mapping[str, str] = MappingProxyType(
    {
        "purge_sessions": "integer",
        "webhook_log_lines": "date, text, integer",
        "purge_webhook_logs": "date, text[]",
        "set_flag": "text, boolean",
        "delete_flag": "text",
    }
)
"""The functions of `ops_app`, each with its argument types. Who may call which: `grants.FUNCTIONS`.

Each is SECURITY DEFINER under a search_path of its own, and checks for itself what it is asked to do.
"""


def problems(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """What of the contract is not there, one phrase each; empty when all is.

    Args:
        rows: The answer of `contract_columns`: one `view`, `column` and `type` per live column.
    """
    live: dict[str, dict[str, str]] = {}
    for row in rows:
        live.setdefault(row["view"], {})[row["column"]] = row["type"]
    return [problem for view in VIEWS for problem in misfits(view, live.get(view, {}))]


def misfits(view: str, columns: Mapping[str, str]) -> list[str]:
    """How the live `columns` (name to type) of one view fall short of the canonical ones."""
    if not columns:
        return [f"view {view} is missing"]
    found = []
    for column, types in VIEWS[view].items():
        if column not in columns:
            found.append(f"column {view}.{column} is missing")
        elif types and columns[column] not in types:
            found.append(f"column {view}.{column} is {columns[column]}, not {' or '.join(sorted(types))}")
    return found
