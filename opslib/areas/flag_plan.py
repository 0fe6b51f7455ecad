"""The three-way compare of flags: what we applied last, what the file (or an override) wants, what the application has.

Two values of three always agree, and which two tells who moved: if the application still has what we applied, the file
changed, and the application follows; if we had applied what the file wants, somebody changed the application by hand,
and that is drift. Without a last value nobody can tell, and nothing is overwritten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum

from opslib.areas.flags import Flag


class State(StrEnum):
    """How a flag stands."""

    IN_SYNC = "in_sync"
    DRIFT = "drift"
    """Changed by hand."""
    UNKNOWN = "unknown"
    """Declared, and the application has no such flag."""
    DOCUMENT_ONLY = "document_only"
    """A partial rollout: the flagd document serves it, the application's on-or-off table cannot."""
    UNDECLARED = "undeclared"
    """The application has it, the file does not."""


@dataclass(frozen=True, slots=True)
class Live:
    """A flag as the application has it.

    Attributes:
        enabled: On or off.
        changed_by: Who changed the row last, masked; None where nobody is named.
        changed_at: When.
    """

    enabled: bool
    changed_by: str | None = None
    changed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """What we last gave the application, and when."""

    value: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class Override:
    """A value that holds instead of the file's until a time."""

    value: bool
    until: datetime
    set_by: str
    set_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done about one flag.

    Attributes:
        key: Which.
        state: How it stands once that is done.
        wanted: What the application should have; None: it is not told.
        live: What it has.
        applied: What to remember as given by us; None: nothing ever was.
        apply: Give it `wanted`.
        why: In words.
        changed_by: Of a change made by hand: who, as far as the application says.
        changed_at: When; None if the change left no trace.
        expires_on: The flag's last day, if it has one.
    """

    key: str
    state: State
    wanted: bool | None
    live: bool | None
    applied: bool | None
    why: str
    apply: bool = False
    changed_by: str | None = None
    changed_at: datetime | None = None
    expires_on: date | None = None


def plan(
    last: Mapping[str, Applied],
    declared: Mapping[str, Flag],
    overrides: Mapping[str, Override],
    live: Mapping[str, Live],
    now: datetime,
) -> tuple[Verdict, ...]:
    """A verdict on each flag that is declared or live. Pure: the same answer for the same arguments."""
    return (
        *(_declared(flag, last.get(key), overrides.get(key), live.get(key), now) for key, flag in declared.items()),
        *_undeclared(declared, live),
    )


def active(override: Override | None, now: datetime) -> bool:
    """Does it still hold?"""
    return override is not None and override.until > now


def _declared(flag: Flag, last: Applied | None, override: Override | None, live: Live | None, now: datetime) -> Verdict:
    wanted, source = flag.plain, "the file"
    if wanted is not None and override is not None and active(override, now):
        wanted, source = override.value, f"{override.set_by}'s override"
    found = Verdict(flag.key, State.IN_SYNC, wanted, live.enabled if live else None, wanted, "", expires_on=flag.expiry)
    if wanted is None:  # an override is no exception: when it is over there would be nothing to put back
        why = f"on for {flag.rollout} %: only the flagd document can say so"
        return replace(found, state=State.DOCUMENT_ONLY, why=why)
    if live is None:
        return replace(found, state=State.UNKNOWN, applied=None, why="the application has no such flag")
    if live.enabled == wanted:
        return replace(found, why=f"as {source} wants it")
    return _differing(found, flag, last, live, source)


def _differing(found: Verdict, flag: Flag, last: Applied | None, live: Live, source: str) -> Verdict:
    if last is not None and last.value == live.enabled:
        return replace(found, apply=True, why=f"{source} wants it {word(found.wanted)}")
    who, when = _hand(last, live)
    found = replace(found, changed_by=who, changed_at=when)
    if flag.enforce:
        return replace(found, apply=True, why="changed by hand; the file enforces its own value")
    if last is None:
        why = f"{word(live.enabled)} since before the first sync; {source} wants it {word(found.wanted)}"
        return replace(found, state=State.DRIFT, applied=None, why=why)
    why = f"changed by hand; {source} wants it {word(found.wanted)}"
    return replace(found, state=State.DRIFT, applied=last.value, why=why)


def _hand(last: Applied | None, live: Live) -> tuple[str | None, datetime | None]:
    """Who and when. A row not touched since we set it was changed behind the application's back: it names nobody."""
    if live.changed_at is None or (last is not None and live.changed_at <= last.at):
        return None, None
    return live.changed_by, live.changed_at


def _undeclared(declared: Mapping[str, Flag], live: Mapping[str, Live]) -> Iterator[Verdict]:
    for key, flag in live.items():
        if key not in declared:
            yield Verdict(key, State.UNDECLARED, None, flag.enabled, None, "not in the file")


def word(value: bool | None) -> str:  # noqa: FBT001 - it is what is worded
    """`on`, `off`, or `-`."""
    return "-" if value is None else "on" if value else "off"
