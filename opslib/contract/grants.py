"""Who may read, write and call what: the declaration, and how a database differs from it.

Of the roles no person stands behind (Grafana passes on any SQL a viewer types, exporters and jobs run unattended) and
of the two a person is a member of: the guard explains to people what these grants enforce.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import psycopg
from psycopg.rows import dict_row

from opslib.contract import canonical
from opslib.contract.finding import Finding

OPS_TABLES = frozenset(
    {
        "exporter_checkpoints",
        "exporter_series",
        "ledger_marks",
        "ledger_seen",
        "ledger_totals",
        "ledger_reclassified",
        "balances",
        "contract_state",
        "jobs",
        "job_workers",
        "job_slots",
        "job_attempts",
        "job_counts",
        "job_totals",
        "audit_head",
        "audit_open",
        "audit_totals",
        "flag_states",
        "flag_overrides",
        "flag_syncs",
        "backup_checks",
    }
)
"""Tables of schema `ops` an exporter reads."""

JOB_TABLES = frozenset(
    {
        "jobs",
        "job_workers",
        "job_slots",
        "job_attempts",
        "job_counts",
        "job_totals",
        "exporter_series",
        "ledger_marks",
        "fact_days",
        "daily_facts",
        "archives",
        "balances",
        "flag_states",
        "flag_overrides",
        "flag_syncs",
        "weekly_summaries",
        "backup_checks",
        "backup_unfinished",
    }
)
"""Tables of schema `ops` a job reads."""

STAFF_TABLES = OPS_TABLES | JOB_TABLES | {"audit_events", "operators", "runbook_runs"}
"""Tables of schema `ops` a person reads."""

OPS_READS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "ops_exporter": OPS_TABLES,
        "ops_jobs": JOB_TABLES | {"audit_events", "audit_head", "audit_open", "audit_totals"},
        "ops_staff": STAFF_TABLES,
        "ops_super": STAFF_TABLES,
    }
)
"""What each role reads of schema `ops`."""

_LOOKUPS = frozenset(
    {
        "ops_view.mask_email",
        "ops_view.mask_text",
        "ops_view.order_ids_by_email",
        "ops_view.order_item_ids",
        "ops_view.user_ids_by_email",
        "ops_view.user_ids_newest",
    }
)
"""What whoever looks records up calls: e-mails are searched, and shown masked."""

_STAFF_CALLS = _LOOKUPS | frozenset(
    {
        "ops.audit_append",
        "ops.operator_role",
        "ops.job_enqueue",
        "ops.job_cancel",
        "ops.backup_begun",
        "ops.backup_checked",
        "ops.backup_finished",
        "ops.flag_applied",
        "ops.flag_override",
        "ops.flag_override_end",
        "ops.flags_broken",
        "ops.flags_synced",
        "ops.runbook_begin",
        "ops.runbook_end",
        "ops_app.set_flag",
    }
)

FUNCTIONS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "ops_exporter": frozenset(
            {
                "ops.checkpoint_claim",
                "ops.checkpoint_save",
                "ops.ledger_start",
                "ops.ledger_backfill",
                "ops.ledger_advance",
                "ops.ledger_pass",
                "ops.ledger_recount",
                "ops.ledger_purge",
                "ops_view.mask_email",
                "ops_view.mask_text",
            }
        ),
        "ops_jobs": frozenset(
            {
                "ops.job_enqueue",
                "ops.job_cancel",
                "ops.job_declare",
                "ops.job_last_slots",
                "ops.job_decide",
                "ops.job_count",
                "ops.job_worker_start",
                "ops.job_worker_stop",
                "ops.job_take",
                "ops.job_claim",
                "ops.job_beat",
                "ops.job_progress",
                "ops.job_watch",
                "ops.job_acknowledge",
                "ops.job_finish",
                "ops.job_release",
                "ops.job_reap",
                "ops.job_prune",
                "ops.audit_append",
                "ops.operator_role",
                "ops.backup_checked",
                "ops.backup_begun",
                "ops.backup_finished",
                "ops.balance_snapshot",
                "ops.balances_prune",
                "ops.flag_applied",
                "ops.flags_synced",
                "ops.flags_broken",
                "ops.weekly_begin",
                "ops.weekly_queued",
                "ops.facts_save",
                "ops.archive_verified",
                "ops.archive_purged",
                "ops.job_run_lines",
                "ops.purge_job_runs",
                "ops_app.purge_sessions",
                "ops_app.webhook_log_lines",
                "ops_app.purge_webhook_logs",
                "ops_app.set_flag",
                "ops_view.mask_email",
                "ops_view.mask_text",
            }
        ),
        "ops_grafana": _LOOKUPS,
        "ops_staff": _STAFF_CALLS,
        "ops_super": _STAFF_CALLS
        | {
            "ops.operator_add",
            "ops.operator_disable",
            "ops_app.delete_flag",
            "ops_view.order_email",
            "ops_view.user_email",
        },
    }
)
"""Functions of ours each role may call, all of them."""

_RELATIONS = """
SELECT role, n.nspname AS schema, c.relname AS name,
       has_schema_privilege(role, n.oid, 'USAGE')
           AND (has_table_privilege(role, c.oid, 'SELECT') OR has_any_column_privilege(role, c.oid, 'SELECT')) AS reads,
       has_table_privilege(role, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
           OR has_any_column_privilege(role, c.oid, 'INSERT, UPDATE, REFERENCES') AS writes
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN unnest(%(roles)s::text[]) AS role
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%%'
ORDER BY 1, 2, 3
"""

_ROUTINES = """
SELECT role, n.nspname || '.' || p.proname AS name, has_function_privilege(role, p.oid, 'EXECUTE') AS calls
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
CROSS JOIN unnest(%(roles)s::text[]) AS role
WHERE n.nspname IN ('ops', 'ops_view', 'ops_app')
ORDER BY 1, 2
"""


def differences(connection: psycopg.Connection) -> Iterator[Finding]:
    """How this database's grants differ from what is declared here.

    Raises:
        psycopg.Error: It cannot be told; a role of ours does not exist, for one.
    """
    parameters = {"roles": list(FUNCTIONS)}
    with connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute(_RELATIONS, parameters).fetchall():
            yield from _relation(row)
        for row in cursor.execute(_ROUTINES, parameters).fetchall():
            yield from _routine(row)


def reads(role: str, schema: str, name: str) -> bool:
    """Whether `role` is meant to read this relation."""
    if schema == canonical.SCHEMA:
        reader = role in canonical.READERS or role == "ops_super"  # as the member of ops_staff that it is
        return reader and (name in canonical.VIEWS or name in canonical.OPS_VIEWS)
    return schema == "ops" and name in OPS_READS.get(role, ())


def _relation(row: Mapping[str, Any]) -> Iterator[Finding]:
    role, schema, name = row["role"], row["schema"], row["name"]
    wanted = reads(role, schema, name)
    if row["reads"] and not wanted:
        yield Finding(
            role, f"reads {schema}.{name}", f"find the grant (\\dp {schema}.{name}), to PUBLIC perhaps; revoke it"
        )
    if wanted and not row["reads"]:
        yield Finding(role, f"cannot read {schema}.{name}", _restore(schema))
    if row["writes"]:
        yield Finding(
            role, f"writes {schema}.{name}", f"find the grant (\\dp {schema}.{name}), to PUBLIC perhaps; revoke it"
        )


def _routine(row: Mapping[str, Any]) -> Iterator[Finding]:
    role, name = row["role"], row["name"]
    wanted = name in FUNCTIONS[role]
    if row["calls"] and not wanted:
        yield Finding(role, f"calls {name}", f"revoke it (\\df+ {name} shows to whom it is granted)")
    if wanted and not row["calls"]:
        yield Finding(role, f"cannot call {name}", _restore(name.partition(".")[0]))


def _restore(schema: str) -> str:
    if schema in (canonical.SCHEMA, canonical.WRITE_SCHEMA):
        return "run `opsctl contract apply`"
    return "grant it again, as the migrations' 0003_grants.up.sql does"
