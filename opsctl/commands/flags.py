"""`opsctl flags`: what the file wants, what the application has, and what one user is told."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from opsctl.actions.flags import delete, set_, sync
from opsctl.kinds import reads
from opsctl.output import Column, Output, printed, printed_json, to_json, words
from opslib import settings
from opslib.areas import flag_sync, flags
from opslib.areas.flag_eval import evaluate, flagd
from opslib.areas.flag_plan import Override, State, Verdict, active, word
from opslib.areas.flag_sync import Known
from opslib.areas.flags import Scope
from opslib.errors import NotFoundError
from opslib.session import session

STATE = Column("state", state=True)


@click.group("flags")
def group() -> None:
    """Feature flags, as the file declares them and as the application has them."""


for command in (set_, sync, delete):
    group.add_command(command)


@group.command("list")
@printed
@reads
def list_(output: Output) -> None:
    """List every flag: wanted by the file or an override, live in the application, and how these differ."""
    known, now = flag_sync.know(settings.load()), datetime.now(UTC)
    rows = [_row(known, verdict, now) for verdict in known.plan(now)]
    columns = ("key", STATE, "wanted", "live", "rollout", "scope", "category", "owner", "expiry", "override_until")
    output.rows(rows, columns, nothing="no flag is declared, and the application has none")


@group.command()
@click.argument("key")
@printed_json
@reads
def show(output: Output, key: str) -> None:
    """Show all there is to know of flag KEY: declared, live, applied, overridden, changed by whom and when."""
    known, now = flag_sync.know(settings.load()), datetime.now(UTC)
    found = {verdict.key: verdict for verdict in known.plan(now)}
    if key not in found:
        raise NotFoundError(f"there is no flag {key}; `opsctl flags list` shows those there are")
    row = _row(known, found[key], now)
    if not output.for_people:
        output.value(row)
        return
    width = max(map(len, row))
    for name, value in row.items():
        click.echo(f"{name.replace('_', ' '):<{width}}  {words(value)}")


@group.command()
@printed
@reads
def diff(output: Output) -> None:
    """Show the flags that are not as wanted, who changed them and when. Exit code 1 if there are any."""
    known, now = flag_sync.know(settings.load()), datetime.now(UTC)
    rows = [_difference(verdict) for verdict in known.plan(now) if _differs(verdict)]
    columns = ("key", STATE, "wanted", "live", "why", "changed_by", Column("changed_at", "Changed at (UTC)"))
    output.rows(rows, columns, nothing="every flag is as the file wants it")
    if rows:
        sys.exit(1)


@group.command("eval")
@click.argument("key")
@click.option("--user", metavar="ID", help="Of a flag whose rollout is counted in users.")
@click.option("--vendor", metavar="ID", help="Of one counted in vendors.")
@printed_json
@reads
def eval_(output: Output, key: str, user: str | None, vendor: str | None) -> None:
    """Explain what flag KEY says to one user or vendor: by the file, and by an override where a database is set."""
    loaded = settings.load()
    flag = flags.load(flag_sync.path(loaded)).flags.get(key)
    if flag is None:
        raise NotFoundError(f"the file declares no flag {key}")
    override = _overrides(loaded).get(key)
    answer = evaluate(flag, override, datetime.now(UTC), vendor if flag.scope is Scope.VENDOR else user)
    partial = flag.plain is None and not active(override, datetime.now(UTC))
    note = "the flagd document serves this; the application's own table knows only on and off" if partial else None
    if not output.for_people:
        output.value({"key": key, "value": answer.value, "because": answer.because, "note": note})
        return
    click.echo(f"{key} is {word(answer.value)}")
    for line in (*answer.because, *([note] if note else [])):
        click.echo(f"  {line}")


@group.command()
@click.option(
    "--flagd", "as_flagd", is_flag=True, required=True, help="As flagd and the OpenFeature providers read it."
)
@reads
def export(*, as_flagd: bool) -> None:
    """Print the flags as a document: what the file says, or an override that holds now, where a database is set."""
    del as_flagd
    loaded = settings.load()
    file = flags.load(flag_sync.path(loaded))
    click.echo(to_json(flagd(file.flags, _overrides(loaded), datetime.now(UTC))))


def _overrides(loaded: settings.Settings) -> Mapping[str, Override]:
    """What holds instead of the file; without a database nothing does."""
    if loaded.ops_dsn is None:
        return {}
    with session(loaded.require_ops(), "flags") as connection:
        return flag_sync.overrides(connection)


def _differs(verdict: Verdict) -> bool:
    return verdict.apply or verdict.state in {State.DRIFT, State.UNKNOWN, State.UNDECLARED}


def _difference(verdict: Verdict) -> dict[str, Any]:
    return {
        "key": verdict.key,
        "state": "pending" if verdict.apply else verdict.state.value,
        "wanted": word(verdict.wanted),
        "live": word(verdict.live),
        "why": verdict.why,
        "changed_by": verdict.changed_by,
        "changed_at": verdict.changed_at,
    }


def _row(known: Known, verdict: Verdict, now: datetime) -> dict[str, Any]:
    flag, last = known.file.flags.get(verdict.key), known.last.get(verdict.key)
    override = known.overrides.get(verdict.key)
    held = override if active(override, now) else None
    return {
        **_difference(verdict),
        "description": flag.description if flag else None,
        "category": flag.category if flag else None,
        "owner": flag.owner if flag else None,
        "scope": flag.scope.value if flag else None,
        "rollout": flag.rollout if flag else None,
        "enforce": flag.enforce if flag else None,
        "expiry": flag.expiry.isoformat() if flag and flag.expiry else None,
        "expired": flag.expired(now.date()) if flag else None,
        "applied": word(last.value) if last else None,
        "applied_at": last.at if last else None,
        "override": word(held.value) if held else None,
        "override_until": held.until if held else None,
        "override_by": held.set_by if held else None,
        "override_reason": held.reason if held else None,
    }
