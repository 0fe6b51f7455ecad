"""`opsctl migrate`: our own schema `ops`, in OPS_DATABASE_URL (default: DATABASE_URL)."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC

import click
from rich.console import Console
from rich.table import Table

from opsctl.kinds import deploys, reads
from opslib import settings
from opslib.contract import migrate as migrations
from opslib.contract.migrate import Migration, State


@click.group()
def migrate() -> None:
    """Bring schema ops to a version; every step in its own transaction, never in the application's way."""


@migrate.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@reads
def status(*, as_json: bool) -> None:
    """Show which migrations stand. Exit code 1 when files and database contradict each other."""
    steps = migrations.status(settings.load().require_ops())
    if as_json:
        click.echo(json.dumps([asdict(step) for step in steps], indent=2, default=str))
    else:
        table = Table("Version", "Name", "State", "Applied (UTC)", "By", box=None, pad_edge=False)
        for step in steps:
            at = f"{step.applied_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if step.applied_at else "-"
            table.add_row(f"{step.version:04d}", step.name, step.state, at, step.applied_by or "-")
        Console(highlight=False).print(table)
    if any(step.state in (State.EDITED, State.UNKNOWN) for step in steps):
        sys.exit(1)


@migrate.command()
@click.option("--to", type=click.IntRange(min=0), metavar="N", help="Stop after version N.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@deploys
def up(to: int | None, *, as_json: bool) -> None:
    """Apply what is pending. Safe to run twice at once: the second waits and finds nothing to do."""
    _report(migrations.up(settings.load().require_ops(), to), "applied", "nothing to apply", as_json=as_json)


@migrate.command()
@click.option(
    "--to", type=click.IntRange(min=0), metavar="N", help="Take back every version above N; 0 takes back all."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@deploys
def down(to: int | None, *, as_json: bool) -> None:
    """Take back the newest migration, or all above N. What its tables held is gone."""
    _report(migrations.down(settings.load().require_ops(), to), "taken back", "nothing to take back", as_json=as_json)


def _report(done: Sequence[Migration], word: str, nothing: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([{"version": step.version, "name": step.name} for step in done], indent=2))
        return
    for step in done:
        click.echo(f"{word} {step.version:04d} {step.name}")
    if not done:
        click.echo(nothing)
