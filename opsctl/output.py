"""One way to print: a table for people, `--json` and `--csv` for programs.

Times are UTC; in JSON and CSV they are ISO 8601. Numbers stay numbers. A text that a spreadsheet would take for a
formula is defused in CSV. Colour only where a terminal is, and not with `NO_COLOR` or `--no-color`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import click

from opslib.shown import Row, iso, span, tint, to_csv, to_json, words

__all__ = [
    "Column",
    "Output",
    "Row",
    "coloured",
    "console",
    "iso",
    "printed",
    "printed_json",
    "span",
    "table",
    "tint",
    "to_csv",
    "to_json",
    "words",
]  # what a command prints with, from one place; how a value looks is `opslib.shown`'s

F = TypeVar("F", bound=Callable[..., Any])

UNBOUNDED = 10_000  # characters in a line when nobody is watching: a pipe wants whole rows


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
