"""`opsctl contract`: the canonical views over the application's tables, and the proof that they fit.

In a deployment: `opsctl contract suspend`, the application's own migrations, `opsctl contract apply`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import click

from opsctl.kinds import deploys
from opslib import settings
from opslib.contract import check as checks
from opslib.contract import contract as views
from opslib.contract import tune as tuning
from opslib.contract.finding import Finding
from opslib.redact import redact

as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable.")


@click.group()
def contract() -> None:
    """Make, remove and prove the views through which everything here reads the application's database."""


@contract.command()
@as_json
@deploys
def apply(*, as_json: bool) -> None:
    """Make every view anew. Those that no longer fit are named, the rest stand; then the exit code is 1."""
    outcome = views.apply(*_dsns())
    _say("applied", outcome, as_json=as_json)


@contract.command()
@as_json
@deploys
def suspend(*, as_json: bool) -> None:
    """Remove every view, so that the application may alter its tables. Run it before the application's migrations."""
    outcome = views.suspend(*_dsns())
    _say("suspended", outcome, as_json=as_json)


@contract.command()
@as_json
@deploys
def check(*, as_json: bool) -> None:
    """Prove views, columns, values, indexes, query plans and grants against the live database.

    Exit code 1 names each fault.
    """
    findings = checks.check(*_dsns())
    if as_json:
        click.echo(json.dumps({"ok": not findings, "findings": [asdict(finding) for finding in findings]}, indent=2))
    elif not findings:
        click.echo("the contract holds: views, columns, values, indexes, query plans and grants")
    _end(findings, as_json=as_json)


@contract.command()
@click.option("--apply", is_flag=True, help="Make the missing indexes; the application goes on meanwhile.")
@as_json
@deploys
def tune(*, apply: bool, as_json: bool) -> None:
    """Print the statements that make the indexes our queries rely on, or make them. Exit code 1: some are missing."""
    tuned = tuning.tune(_dsns()[0], apply=apply)
    if as_json:
        report = {
            "done": tuned.done,
            "missing": [asdict(lack) | {"statements": lack.statements} for lack in tuned.missing],
            "findings": [asdict(finding) for finding in tuned.findings],
        }
        click.echo(json.dumps(report, indent=2))
    else:
        _print(tuned, apply=apply)
    if any(not lack.index.optional for lack in tuned.missing):
        sys.exit(1)


def _print(tuned: tuning.Tuning, *, apply: bool) -> None:
    for statement in tuned.done:
        click.echo(f"done: {statement};")
    for finding in tuned.findings:
        click.echo(redact(str(finding)))
    needed = [lack for lack in tuned.missing if not lack.index.optional]
    if not needed:
        click.echo("every index our queries rely on is there")
    for lack in tuned.missing:
        use = "optional, for" if lack.index.optional else "needed by"
        click.echo(f"-- {lack.problem}; {use} {', '.join(lack.index.serves)}")
        for statement in lack.statements:
            click.echo(f"{statement};")
    if needed and not apply:
        click.echo("`opsctl contract tune --apply` makes what is needed", err=True)


def _dsns() -> tuple[str, str | None]:
    loaded = settings.load().require("DATABASE_URL")
    assert loaded.database_url is not None  # noqa: S101 - required above
    ops = loaded.ops_database_url
    return loaded.database_url.get_secret_value(), ops.get_secret_value() if ops else None


def _say(word: str, outcome: views.Outcome, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(outcome), indent=2))
    else:
        click.echo(f"{word}: {', '.join(outcome.views) or 'no view'}")
        for note in outcome.notes:
            click.echo(f"note: {redact(note)}", err=True)
    _end(outcome.findings, as_json=as_json)


def _end(findings: Sequence[Finding], *, as_json: bool) -> None:
    if not as_json:
        for finding in findings:
            click.echo(redact(str(finding)))
    if findings:
        sys.exit(1)
