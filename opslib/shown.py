"""How a value looks, to people and to programs, the same on a terminal, in a file and in a report.

Times are UTC, ISO 8601 for programs. A text that a spreadsheet would take for a formula is defused in CSV.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from opslib.formula import BREAKS, FORMULA

Row = Mapping[str, Any]

_TINTS = {
    "green": (
        "ok",
        "success",
        "paid",
        "fulfilled",
        "finished",
        "delivered",
        "sold",
        "active",
        "yes",
        "applied",
        "verified",
    ),
    "yellow": (
        "waiting",
        "confirming",
        "delayed",
        "underpaid",
        "duplicate",
        "reserved",
        "paused",
        "pending",
        "running",
    ),
    "red": ("failed", "error", "invalid", "expired", "refused", "stopped", "edited", "unknown", "missing"),
}
TINT = {word: colour for colour, words in _TINTS.items() for word in words}
"""The colour of a state's word, the same in every table."""


def tint(state: Any) -> str:
    """The colour of a state's word; none if it has none."""
    return TINT.get(str(state).lower(), "")


def words(value: Any) -> str:
    """A value as a person reads it in one line."""
    match value:
        case None:
            text = "-"
        case bool():
            text = "yes" if value else "no"
        case datetime():
            text = f"{_utc(value):%Y-%m-%d %H:%M:%S}"
        case timedelta():
            text = span(value)
        case Decimal():
            text = _amount(value)
        case list() | tuple() | set() | frozenset():
            text = ", ".join(map(words, value))
        case dict():
            text = to_json(value, indent=None)
        case _:
            text = str(value)
    # One row is one line, and no control character reaches the terminal.
    return "".join(char if char.isprintable() else " " for char in text)


def _amount(value: Decimal) -> str:
    """An amount with two places or as many as say something: `-5.00`, `0.00042`; a whole number as one."""
    whole, point, places = f"{value:f}".partition(".")
    return f"{whole}.{places.rstrip('0'):0<2}" if point else whole


def span(value: timedelta) -> str:
    """A duration in its two largest units: `3 d 4 h`, `1 min 5 s`; below a minute `4.2 s` or `58 ms`."""
    seconds = abs(value.total_seconds())
    sign = "-" if value < timedelta() else ""
    if seconds < 1:
        return f"{sign}{seconds * 1000:.0f} ms" if seconds else "0 s"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{sign}{seconds:.1f}".removesuffix(".0") + " s"
    left, parts = int(seconds), []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return sign + " ".join(parts[:2])


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def iso(at: datetime) -> str:
    """UTC in ISO 8601, to the microsecond it has: `2026-01-01T12:00:00Z`."""
    return _utc(at).isoformat().replace("+00:00", "Z")


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """JSON of whatever a row holds."""
    return json.dumps(value, indent=indent, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return iso(value)
        case date():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal():
            # A number where a double says exactly that, else the digits.
            return float(value) if Decimal(repr(float(value))) == value else str(value)
        case set() | frozenset():
            return sorted(value)
        case _:
            return str(value)


def defused(value: Any) -> Any:
    """A cell for CSV: a text that begins like a formula gets an apostrophe before it, a number stays one."""
    if not isinstance(value, str):
        return value
    first = value.lstrip()[:1]
    return f"'{value}" if value.startswith(BREAKS) or (first and first in FORMULA) else value


def to_csv(rows: Iterable[Row], keys: Sequence[str]) -> str:
    """CSV with a head line; absent is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(keys)
    for row in rows:
        writer.writerow([_cell(row.get(key)) for key in keys])
    return text.getvalue()


def _cell(value: Any) -> Any:
    match value:
        case bool():
            return "true" if value else "false"
        case Decimal():
            return f"{value:f}"
        case datetime() | date() | timedelta():
            return _plain(value)
        case dict() | list() | tuple():
            return defused(to_json(value, indent=None))
        case int() | float() | None:
            return value
        case _:
            return defused(str(value))
