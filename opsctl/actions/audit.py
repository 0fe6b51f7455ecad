"""What an operator may say to the audit: that a restore took it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opsctl.actions import Role, Severity, action
from opslib import audit_chain, audit_store
from opslib.storage import Storage

if TYPE_CHECKING:
    from opslib.guard import Act  # brings structlog, which a command that only lists does not need


@click.command("accept-restore")
@action(
    "audit.accept-restore",
    role=Role.SUPER,
    severity=Severity.DESTRUCTIVE,
    event="OPS_AUDIT_RESTORED",
    touches="what the audit's verification accepts",
    runbook="RestoreDatabase",
)
def accept_restore(act: Act) -> None:
    """Say that a restore took the audit back behind heads noted outside.

    `verify` then tells of the restore instead of failing. The chain itself must be whole.
    """
    report = audit_chain.verify(act.settings.require_ops(), audit_store.noted(Storage.of(act.settings)))
    audit_store.acceptable(report)
    act.plan(
        str(report.unexplained[-1].seq),
        f"accept that a restore lost events noted outside, the last of them {report.unexplained[-1].seq}",
        *report.findings,
        "sealed segments of the lost branch stay in the bucket",
    )
    with act.transaction() as connection:
        audit_store.accept(connection, report, act.reason)
    click.echo("accepted: `opsctl audit verify` tells of it from now on")
