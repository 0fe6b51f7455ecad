"""Feature flags: switch one, for a while or until the file says the same; bring all to the file; delete a left-over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from opsctl.actions import Role, Severity, action
from opsctl.output import words
from opslib.areas import flag_sync
from opslib.areas.flag_plan import Verdict, active, word
from opslib.areas.flag_sync import Known
from opslib.errors import NotFoundError, RefusedError
from opslib.session import Connection, session

if TYPE_CHECKING:
    from opslib.guard import Act  # brings structlog, which a command that only lists does not need

RUNBOOK = "Flags"
EVENT = "OPS_FLAG_ACTION"
VALUES = {"on": True, "off": False}

_SPAN = re.compile(r"(?P<count>\d{1,4})(?P<unit>[mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
LONGEST = timedelta(days=31)


class Span(click.ParamType[timedelta]):
    """`30m`, `2h`, `7d`."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """How long."""
        if isinstance(value, timedelta):
            return value
        match = _SPAN.fullmatch(value.strip())
        span = timedelta(**{_UNITS[match["unit"]]: int(match["count"])}) if match else timedelta()
        if not timedelta() < span <= LONGEST:
            self.fail(f"{value!r} is no such time: write 30m, 2h or 7d, at most {LONGEST.days}d", param, ctx)
        return span


@click.command("set")
@click.argument("key")
@click.argument("value", type=click.Choice([*VALUES]))
@click.option("--for", "span", type=Span(), help="Put the file's value back after so long: 30m, 2h, 7d.")
@action(
    "flags.set",
    role=Role.STAFF,
    severity=Severity.RISKY,
    event=EVENT,
    touches="what the application does",
    runbook=RUNBOOK,
)
def set_(act: Act, key: str, value: str, span: timedelta | None) -> None:
    """Switch flag KEY on or off in the running application.

    With --for, flag-sync puts the file's value back when the time is over. Without, the flag stays so, and differs from
    the file until somebody changes the file: flag-sync reports it as drift. The file's own value ends an override.
    """
    known, wanted, now = flag_sync.know(act.settings), VALUES[value], datetime.now(UTC)
    _refuse(known, key, value, span)
    declared, live = known.file.flags.get(key), known.live.get(key)
    document_only = live is None or (declared is not None and declared.plain is None)
    way = None if document_only else flag_sync.switch(act.settings)
    until = now + span if span else None
    then = f"until {words(until)} UTC" if until else _afterwards(known, key, wanted=wanted)
    if document_only:
        then += ", in the flagd document alone: the application's own table cannot hold it"
    act.plan(key, f"set {key} from {word(live.enabled if live else None)} to {value}, {then}")
    with act.go(), _ops(act) as connection:
        if way is not None:
            way.set_flag(key, enabled=wanted)  # first: where the application refuses, nothing else has changed
        if until is not None:
            connection.execute("SELECT ops.flag_override(%s, %s, %s, %s)", (key, wanted, until, act.reason))
        else:
            connection.execute("SELECT ops.flag_override_end(%s)", (key,))
        if way is not None and (until is not None or _in_file(known, key) == wanted):
            # Ours, and as it should be: the next sync must not take it for a change made by hand.
            connection.execute("SELECT ops.flag_applied(%s, %s)", (key, wanted))
    click.echo(f"{key} is {value}, {then}")


def _refuse(known: Known, key: str, value: str, span: timedelta | None) -> None:
    """What cannot be set.

    Raises:
        NotFoundError: Nobody knows the flag.
        RefusedError: It would not last, or the application's table cannot hold it.
    """
    declared = known.file.flags.get(key)
    if declared is None and key not in known.live:
        raise NotFoundError(f"there is no flag {key}; `opsctl flags list` shows those there are")
    if span is not None:
        if declared is None:
            raise RefusedError(f"{key} is not in the file, so there is nothing to put back: declare it first")
        return
    if key not in known.live:
        raise RefusedError(f"the application has no flag {key}: change the file, or set it with --for")
    if declared is not None and declared.plain is None:
        raise RefusedError(
            f"{key} is on for {declared.rollout} % of {declared.scope}s: the application's own table knows only on "
            "and off, so the flagd document alone serves it. Change its rollout in the file, or set it with --for"
        )
    if declared is not None and declared.enforce and declared.plain != VALUES[value]:
        raise RefusedError(
            f"the file enforces {key}: it would be back in a minute. Change the file, or set it with --for"
        )


def _in_file(known: Known, key: str) -> bool | None:
    declared = known.file.flags.get(key)
    return declared.plain if declared else None


def _afterwards(known: Known, key: str, *, wanted: bool) -> str:
    if key not in known.file.flags:
        return "for good: the file does not have it"
    if _in_file(known, key) == wanted:
        return "as the file wants it"
    return f"until the file, which says {word(_in_file(known, key))}, says so too: flag-sync reports it as drift"


@click.command()
@action(
    "flags.sync",
    role=Role.STAFF,
    severity=Severity.SAFE,
    event=EVENT,
    touches="what the application does",
    runbook=RUNBOOK,
)
def sync(act: Act) -> None:
    """Bring the application to the file now, as flag-sync does every minute. Drift stays, except where enforced."""
    verdicts = flag_sync.know(act.settings).plan(datetime.now(UTC))
    changes = [_change(verdict) for verdict in verdicts if verdict.apply]
    act.plan("flags", f"{len(changes)} to set", *changes)
    with act.go():
        done = [verdict for verdict in flag_sync.sync(act.settings) if verdict.apply]
    for verdict in done:
        click.echo(_change(verdict))
    click.echo(f"set: {len(done)}")


def _change(verdict: Verdict) -> str:
    return f"{verdict.key}: {word(verdict.live)} to {word(verdict.wanted)}: {verdict.why}"


@click.command()
@click.argument("key")
@action(
    "flags.delete",
    role=Role.SUPER,
    severity=Severity.DESTRUCTIVE,
    event=EVENT,
    touches="which flags the application has",
    runbook=RUNBOOK,
)
def delete(act: Act, key: str) -> None:
    """Delete flag KEY, which the file no longer has, from the application's table.

    Code that still asks for it gets its own default.
    """
    known = flag_sync.know(act.settings)
    if key not in known.live:
        raise NotFoundError(f"the application has no flag {key}")
    if key in known.file.flags:
        raise RefusedError(f"{key} is declared in the file: take it out there first")
    held = " and its override" if active(known.overrides.get(key), datetime.now(UTC)) else ""
    act.plan(key, f"delete {key}, now {word(known.live[key].enabled)}{held}")
    with act.go(), _ops(act) as connection:
        with session(act.settings.reveal("DATABASE_URL"), "flags delete") as app:
            app.execute("SELECT ops_app.delete_flag(%s)", (key,))
        connection.execute("SELECT ops.flag_override_end(%s)", (key,))
    click.echo(f"{key} is deleted")


@contextmanager
def _ops(act: Act) -> Iterator[Connection]:
    with session(act.settings.require_ops(), "flags") as connection:
        yield connection
