"""The one list of every subject, every job and every command, as import strings, so that listing them loads nothing.

A new exporter, job or command is one line here.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opslib.spec import Subject

SUBJECTS: dict[str, str] = {
    "queues": "exporters.queues:SUBJECT",
    "ledger": "exporters.ledger:SUBJECT",
    "providers": "exporters.providers:SUBJECT",
    "app": "exporters.app:SUBJECT",
    "backups": "exporters.backups:SUBJECT",
    "audit": "exporters.audit:SUBJECT",
    "runs": "exporters.runs:SUBJECT",
    "flags": "exporters.flags:SUBJECT",
}

ITSELF = "exporters.signals.itself:SUBJECT"
"""What every exporter publishes about itself: no exporter of its own, but watched like one."""

JOBS: dict[str, str] = {
    "audit-anchor": "jobs.audit_anchor:JOB",
    "backup-database": "jobs.backup_database:JOB",
    "balance-snapshot": "jobs.balance_snapshot:JOB",
    "daily-report": "jobs.daily_report:JOB",
    "flag-sync": "jobs.flag_sync:JOB",
    "product-sync": "jobs.product_sync:JOB",
    "weekly-report": "jobs.weekly_report:JOB",
    "weekly-summary": "jobs.weekly_summary:JOB",
    "restore-drill": "jobs.restore_drill:JOB",
    "verify-backup": "jobs.verify_backup:JOB",
    "cleanup": "jobs.cleanup:JOB",
    "retention": "jobs.retention:JOB",
    "replicate-objects": "jobs.replicate_objects:JOB",
}

BOARDS: dict[str, str] = {
    "overview": "opsctl.boards.overview:BOARD",
    "fulfilment": "opsctl.boards.fulfilment:BOARD",
    "queues": "opsctl.boards.queues:BOARD",
    "providers": "opsctl.boards.providers:BOARD",
    "jobs": "opsctl.boards.jobs:BOARD",
    "backups": "opsctl.boards.backups:BOARD",
    "records": "opsctl.boards.records:BOARD",
    "order": "opsctl.boards.order:BOARD",
    "audit": "opsctl.boards.audit:BOARD",
    "exporters": "opsctl.boards.exporters:BOARD",
}


@dataclass(frozen=True, slots=True)
class Command:
    """One word after `opsctl`.

    Attributes:
        target: Its click command, as "module:object".
        help: Its line in `opsctl --help`.
    """

    target: str
    help: str


COMMANDS: dict[str, Command] = {
    "alertmanager": Command("opsctl.commands.alertmanager:alertmanager", "Alertmanager's configuration."),
    "app-audit": Command("opsctl.commands.records:app_audit", "What the application's own admins did."),
    "audit": Command("opsctl.commands.audit:group", "What was done and refused, and the proof of it."),
    "backups": Command("opsctl.commands.backups:backups", "Backups: list, prove, drill, restore."),
    "balances": Command("opsctl.commands.balances:balances", "What lies at the providers, and how long it lasts."),
    "check-config": Command(
        "opsctl.commands.config:check_config", "Check the settings and show where each comes from."
    ),
    "completion": Command("opsctl.commands.completion:completion", "Print the completion script of a shell."),
    "contract": Command("opsctl.commands.contract:contract", "The views over the application's tables."),
    "doctor": Command("opsctl.commands.doctor:doctor", "Connect to everything; say what is wrong and what to do."),
    "export": Command("opsctl.commands.export:export", "Records as CSV or NDJSON, of any size."),
    "exporter": Command("opsctl.commands.exporter:exporter", "Publish metrics."),
    "flags": Command("opsctl.commands.flags:group", "Feature flags: compare, explain, switch, export."),
    "jobs": Command("opsctl.commands.jobs:jobs", "Jobs: queue, follow, cancel, look back."),
    "operators": Command("opsctl.commands.operators:operators", "Who may act: add, list, disable, whoami."),
    "migrate": Command("opsctl.commands.migrate:migrate", "Our own schema's migrations."),
    "objects": Command("opsctl.commands.objects:objects", "The bucket's objects: put lost ones back."),
    "orders": Command("opsctl.commands.records:orders", "What was ordered, and what became of it."),
    "payments": Command("opsctl.commands.records:payments", "What was paid, and through whom."),
    "queues": Command("opsctl.commands.queues:queues", "BullMQ queues: jobs, workers, failures."),
    "redis-acl": Command("opsctl.commands.redis_acl:redis_acl_", "The Redis users to make."),
    "report": Command("opsctl.commands.report:report", "The static report of a day or a week."),
    "reservations": Command("opsctl.commands.records:reservations", "What is set aside for whom."),
    "runbook": Command("opsctl.commands.runbook:runbook", "What to do, step by step; and doing it."),
    "sessions": Command("opsctl.commands.records:sessions", "Who is logged in."),
    "users": Command("opsctl.commands.records:users", "Who has an account."),
    "webhooks": Command("opsctl.commands.records:webhooks", "Who called us, and how each call ended."),
}


def load(target: str) -> Any:
    """Import "module:object"."""
    module, _, name = target.partition(":")
    collecting = gc.isenabled()
    gc.disable()  # modules are no garbage: looking for some among them meanwhile is a twentieth of a command's start
    try:
        return getattr(import_module(module), name)
    finally:
        if collecting:
            gc.enable()


def subject(name: str) -> Subject:
    """The subject of that name, loading its module only."""
    loaded: Subject = load(SUBJECTS[name])
    return loaded


def watched() -> list[Subject]:
    """Every subject with signals, the exporters themselves last."""
    return [*map(subject, SUBJECTS), load(ITSELF)]
