"""`opsctl backups`: what there is, how old, how large, and what was proven of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from opsctl.actions.backups import drill, restore_, verify
from opsctl.kinds import reads
from opsctl.output import Column, Output, printed
from opslib import settings
from opslib.areas import backups as area
from opslib.areas.backups import Kind
from opslib.storage import Storage


@click.group()
def backups() -> None:
    """Backups of the database: list, prove, drill, restore."""


backups.add_command(verify)
backups.add_command(drill)
backups.add_command(restore_)


@backups.command("list")
@printed
@reads
def list_(output: Output) -> None:
    """Show every backup in the bucket, the newest first, with its size, age and last proofs."""
    loaded = settings.load()
    found = area.listing(Storage.of(loaded))
    checks = area.checks(loaded.require_ops())
    now = datetime.now(UTC)

    def proof(key: str, kind: Kind) -> tuple[str, datetime | None, float | None]:
        check = checks.get((key, kind))
        if check is None:
            return "no", None, None
        return ("ok" if check["ok"] else "failed"), check["checked_at"], check["seconds"]

    rows: list[dict[str, Any]] = []
    for backup in reversed(found):
        verified, verified_at, _ = proof(backup.key, Kind.VERIFY)
        drilled, drilled_at, seconds = proof(backup.key, Kind.DRILL)
        rows.append(
            {
                "key": backup.key,
                "written": backup.written,
                "age": now - backup.written,
                "megabytes": round(backup.stored.size / 1e6, 1),
                "bytes": backup.stored.size,
                "manifest": "yes" if backup.has_manifest else "missing",
                "verified": verified,
                "verified_at": verified_at,
                "drilled": drilled,
                "drilled_at": drilled_at,
                "drill_seconds": seconds,
            }
        )
    output.rows(
        rows,
        [
            *("key", "written", "age", Column("megabytes", "MB"), Column("manifest", state=True)),
            *(Column("verified", state=True), "verified_at", Column("drilled", state=True), "drill_seconds"),
        ],
        nothing="no backup yet: `opsctl jobs enqueue backup-database`",
    )
