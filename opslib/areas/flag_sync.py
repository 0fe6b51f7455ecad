"""Bring the application's flags to what the file says, and remember what was found. The job and the command do this.

Everything is repeatable: what was set and not remembered is found to be as wanted the next time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from psycopg.types.json import Jsonb

from opslib.areas import flags as files
from opslib.areas.flag_plan import Applied, Live, Override, State, Verdict, plan
from opslib.areas.flags import FlagFile, FlagFileError
from opslib.areas.queries import NAMED
from opslib.errors import JobError, NotFoundError, OpsError
from opslib.session import Connection, session
from opslib.settings import Settings

NAME = "flag-sync"
MOST_ERRORS = 50
"""Of one file that are remembered; who mends those sees the others."""

STATE_FIELDS = ("key", "state", "wanted", "live", "applied", "changed_by", "changed_at", "expires_on")


class Switch(Protocol):
    """Changes a flag of the application."""

    def set_flag(self, name: str, *, enabled: bool) -> None:
        """On or off.

        Raises:
            NotFoundError: The application has no such flag.
            SourceError: It is away, or refused.
        """


@dataclass(frozen=True, slots=True)
class Table:
    """Through the application's table: its running processes hear of it when they next start.

    Attributes:
        dsn: The application's database.
    """

    dsn: str

    def set_flag(self, name: str, *, enabled: bool) -> None:
        """On or off; see `Switch`."""
        with session(self.dsn, NAME) as connection:
            (row,) = connection.execute("SELECT ops_app.set_flag(%s, %s) AS known", (name, enabled)).fetchall()
        if not row["known"]:
            raise NotFoundError(f"the application has no flag {name}")


@dataclass(frozen=True, slots=True)
class Known:
    """Everything a plan is made of.

    Attributes:
        file: What is declared.
        last: What we applied last.
        overrides: What holds instead of the file.
        live: What the application has.
    """

    file: FlagFile
    last: Mapping[str, Applied]
    overrides: Mapping[str, Override]
    live: Mapping[str, Live]

    def plan(self, now: datetime) -> tuple[Verdict, ...]:
        """What is to be done."""
        return plan(self.last, self.file.flags, self.overrides, self.live, now)


def switch(settings: Settings) -> Switch:
    """The way to the application's flags the settings choose.

    Raises:
        ConfigError: What that way needs is not set.
    """
    if settings.ops_flags_via == "table":
        return Table(settings.reveal("DATABASE_URL"))
    from opslib.areas.app_admin import AppAdmin  # noqa: PLC0415 - a tenth of a second that what only reads need not pay

    return AppAdmin(settings)


def path(settings: Settings) -> Path:
    """Where the file is.

    Raises:
        ConfigError: Nobody said.
    """
    return Path(settings.reveal("OPS_FLAGS_FILE"))


def know(settings: Settings) -> Known:
    """Read all of it.

    Raises:
        ConfigError: A setting is missing, or the file cannot be used.
        SourceError: A database is away.
    """
    file = files.load(path(settings))
    with session(settings.require_ops(), NAME) as connection:
        states = connection.execute(NAMED["flag_states"].sql).fetchall()
        overridden = overrides(connection)
    with session(settings.reveal("DATABASE_URL"), NAME) as connection:
        live = connection.execute(NAMED["flags_live"].sql).fetchall()
    return Known(
        file,
        {row["key"]: Applied(row["applied"], row["applied_at"]) for row in states if row["applied"] is not None},
        overridden,
        {row["key"]: Live(row["enabled"], row["changed_by"], row["changed_at"]) for row in live},
    )


def overrides(connection: Connection) -> dict[str, Override]:
    """Every override, those that are over and not yet put back too."""
    rows = connection.execute(NAMED["flag_overrides"].sql).fetchall()
    return {
        row["key"]: Override(row["value"], row["until"], row["set_by"], row["set_at"], row["reason"]) for row in rows
    }


def sync(settings: Settings) -> tuple[Verdict, ...]:
    """Compare, apply, remember. A file that cannot be used changes nothing, and that is remembered as well.

    Raises:
        ConfigError: A setting is missing.
        JobError: The file cannot be used, or a flag could not be set; the others were.
        SourceError: A database is away.
    """
    way = switch(settings)
    now = datetime.now(UTC)
    try:
        known = know(settings)
    except FlagFileError as exc:
        with session(settings.require_ops(), NAME) as connection:
            connection.execute("SELECT ops.flags_broken(%s)", (exc.errors[:MOST_ERRORS],))
        raise JobError(f"the flag file cannot be used, so nothing was changed:\n{exc}") from exc
    verdicts = known.plan(now)
    with session(settings.require_ops(), NAME) as connection:
        failures = _apply(connection, way, verdicts)
        if failures:
            raise JobError("; ".join(failures))
        states = Jsonb([_state(verdict) for verdict in verdicts])
        connection.execute("SELECT ops.flags_synced(%s, %s, %s)", (known.file.checksum, now, states))
    return verdicts


def _apply(connection: Connection, way: Switch, verdicts: Sequence[Verdict]) -> list[str]:
    failures = []
    for verdict in verdicts:
        if verdict.apply and verdict.wanted is not None:
            try:
                way.set_flag(verdict.key, enabled=verdict.wanted)
            except OpsError as exc:
                failures.append(str(exc))
            else:
                connection.execute("SELECT ops.flag_applied(%s, %s)", (verdict.key, verdict.wanted))
    return failures


def _state(verdict: Verdict) -> dict[str, object]:
    fields = asdict(verdict)
    state = {name: fields[name] for name in STATE_FIELDS}
    # Of a change by hand that was undone the run's result tells; what stands here is how it is now.
    if verdict.apply:
        state |= {"live": verdict.wanted, "changed_by": None, "changed_at": None}
    elif verdict.state is not State.DRIFT:
        state |= {"changed_by": None, "changed_at": None}
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in state.items()}
