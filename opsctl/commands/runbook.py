"""`opsctl runbook`: what to do, step by step."""

from __future__ import annotations

import click

from opsctl.actions.runbook import run
from opsctl.kinds import reads
from opsctl.output import Output, printed
from opslib.areas import runbooks


@click.group()
def runbook() -> None:
    """Runbooks: what to do when an alert fires, a database or a host is lost, secrets change."""


runbook.add_command(run)


@runbook.command("list")
@printed
@reads
def list_(output: Output) -> None:
    """Show every runbook; one with steps can be run, and says how long its last rehearsal took."""
    rows = []
    for name in runbooks.names():
        book = runbooks.read(name)
        times = [step.rehearsed for step in book.steps if step.rehearsed is not None]
        rows.append(
            {
                "name": name,
                "steps": len(book.steps) or None,
                "rehearsed_seconds": round(sum(times), 1) if times else None,
                "title": book.title,
            }
        )
    rows.sort(key=lambda row: (row["steps"] is None, row["name"]))
    output.rows(rows, ["name", "steps", "rehearsed_seconds", "title"])


@runbook.command()
@click.argument("name")
@reads
def show(name: str) -> None:
    """Print the runbook NAME."""
    click.echo(runbooks.read(name).text, nl=False)
