"""One way to print: a table for people, `--json` and `--csv` for programs.

Times are UTC; in JSON and CSV they are ISO 8601. Numbers stay numbers. A text that a spreadsheet would take for a
formula is defused in CSV. Colour only where a terminal is, and not with `NO_COLOR` or `--no-color`.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import click

from opslib.formula import BREAKS, FORMULA

Row = Mapping[str, Any]
F = TypeVar("F", bound=Callable[..., Any])

UNBOUNDED = 10_000  # characters in a line when nobody is watching: a pipe wants whole rows

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


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        key: Of the row.
        title: Its head; the key in words by default.
        state: Holds a state's word, and is coloured by it (`TINT`).
    """

    key: str
    title: str = ""
    state: bool = False

    @property
    def head(self) -> str:
        """What stands above it."""
        return self.title or self.key.replace("_", " ").capitalize()


@dataclass(frozen=True, slots=True)
class Output:
    """How the caller wants to read it.

    Attributes:
        style: `table`, `json` or `csv`.
    """

    style: str = "table"

    def rows(self, rows: Iterable[Row], columns: Sequence[Column | str], *, nothing: str = "nothing found") -> None:
        """Print rows.

        Args:
            rows: What to print. JSON shows all they hold, table and CSV the columns.
            columns: In order; a text is a column of that key.
            nothing: What a person reads when there is no row. Programs get `[]`, or the head alone.
        """
        shown = [Column(column) if isinstance(column, str) else column for column in columns]
        if self.style == "json":
            self.value([dict(row) for row in rows])
        elif self.style == "csv":
            click.echo(to_csv(rows, [column.key for column in shown]), nl=False)
        else:
            table(rows, shown, nothing=nothing)

    def value(self, value: Any) -> None:
        """Print anything as JSON."""
        click.echo(to_json(value))

    @property
    def for_people(self) -> bool:
        """Is it a person who reads?"""
        return self.style == "table"


def printed(command: F) -> F:
    """Give a command that lists rows `--json` and `--csv`; it gets `output: Output`."""
    return _option("--csv", "csv", "Comma-separated, safe to open in a spreadsheet.")(printed_json(command))


def printed_json(command: F) -> F:
    """Give a command that shows one thing `--json`; it gets `output: Output`."""
    return _option("--json", "json", "Machine-readable.")(command)


def _option(flag: str, style: str, text: str) -> Callable[[F], F]:
    def choose(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's signature
        if wanted and ctx.params.get("output", Output()).style not in {"table", style}:
            raise click.UsageError("--json and --csv exclude each other: keep one")
        if wanted or "output" not in ctx.params:
            ctx.params["output"] = Output(style if wanted else "table")

    return click.option(flag, is_flag=True, expose_value=False, is_eager=True, callback=choose, help=text)


def coloured() -> bool:
    """Does whoever reads standard output want colour?"""
    context = click.get_current_context(silent=True)
    forbidden = os.environ.get("NO_COLOR") or (context is not None and context.color is False)
    return sys.stdout.isatty() and not forbidden


def console() -> Any:
    """A `rich.console.Console` for standard output: as wide as the terminal, or as the text where there is none."""
    from rich.console import Console  # noqa: PLC0415 - a tenth of a second that JSON need not pay

    watched = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(
        highlight=False,
        color_system="auto" if coloured() else None,
        width=None if watched else UNBOUNDED,
    )


def table(rows: Iterable[Row], columns: Sequence[Column], *, nothing: str = "nothing found") -> None:
    """Print a table for people; numbers to the right, times to the second, in UTC."""
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    listed = list(rows)
    if not listed:
        click.echo(nothing)
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        values = [row.get(column.key) for row in listed]
        grid.add_column(
            Text(column.head),
            justify="right" if all(map(_numeric, values)) else "left",
            overflow="fold",
            # An id is there to be copied: on a narrow terminal other columns fold first.
            no_wrap=all(isinstance(value, UUID | datetime | None) or _numeric(value) for value in values),
        )
    for row in listed:
        # Text, not str: a value from outside is never read as markup.
        grid.add_row(*(Text(words(row.get(c.key)), style=tint(row.get(c.key)) if c.state else "") for c in columns))
    console().print(grid)


def _numeric(value: Any) -> bool:
    return value is None or (isinstance(value, int | float | Decimal | timedelta) and not isinstance(value, bool))


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
