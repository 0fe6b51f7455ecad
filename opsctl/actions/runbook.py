"""Runbooks: run their steps, one after the other, and remember what came of each."""

from __future__ import annotations

import os

import click

from opsctl.actions import Role, Severity, action
from opslib import audit
from opslib.areas import runbooks
from opslib.errors import ConfigError, JobError
from opslib.guard import Act
from opslib.redact import redact


@click.command()
@click.argument("name")
@click.option("--step", type=click.IntRange(min=1), help="Only this one.")
@action(
    "runbook.run",
    role=Role.STAFF,
    severity=Severity.RISKY,
    event="OPS_RUNBOOK_STEP",
    touches="whatever its steps change",
    runbook="RestoreDatabase",
)
def run(act: Act, name: str, step: int | None) -> None:
    """Run the steps of the runbook NAME with your own rights, asking before each; stops at the first that fails.

    What a step prints is kept in ops.runbook_runs, its secrets removed. Commands in it that are actions ask the guard
    themselves; the reason given here is theirs, too ($REASON).
    """
    book = runbooks.read(name)
    steps = book.chosen(step)
    if missing := book.missing({**os.environ, runbooks.REASON: "given"}):
        raise ConfigError(
            f"{name} needs {', '.join(missing)} in the environment: `opsctl runbook show {name}` says what each is"
        )
    commands = [f"  {line}" for each in steps for line in (f"{each.number}. {each.title}", *each.script.splitlines())]
    act.plan(name, f"run {len(steps)} of the {len(book.steps)} steps of {name}", *commands)
    act.allow()
    environment = {**os.environ, runbooks.REASON: act.reason}
    for each in steps:
        if each is not steps[0] and not act.agrees(f"{each.number}. {each.title}: run it? [y/N]"):
            click.echo(f"stopped before step {each.number}: go on with --step {each.number}", err=True)
            return
        click.echo(f"== {each.number}. {each.title}")
        with act.each(f"{name} step {each.number}", {"title": each.title}):
            with audit.connect(act.settings.require_ops()) as connection:
                row = runbooks.begin(connection, book, each, redact(act.reason))
            code, output = runbooks.execute(each.script, environment, lambda line: click.echo(redact(line)))
            with audit.connect(act.settings.require_ops()) as connection:
                runbooks.end(connection, row, code, redact(output))
            if code:
                raise JobError(
                    f"step {each.number} of {name} ended with exit code {code}: put right what it says, then "
                    f"`opsctl runbook run {name} --step {each.number}`"
                )
    click.echo(f"{name}: {len(steps)} done")
