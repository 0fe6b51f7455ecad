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
FOLDED = 24  # characters: the narrowest a long text is folded to, and the widest that is never folded
GAP = 2  # characters between two columns


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
    """Print a table for people; numbers to the right, times to the second, in UTC.

    On a terminal too narrow for it each row becomes a paragraph: a table cut in the middle of its words is none.
    """
    listed = list(rows)
    if not listed:
        click.echo(nothing)
        return
    screen = console()
    wide = [max(len(column.head), *(len(words(row.get(column.key))) for row in listed)) for column in columns]
    # What is short is there to be read at a glance, an id to be copied: only long texts fold.
    folds = [
        width > FOLDED and not all(isinstance(row.get(column.key), UUID | datetime | None) for row in listed)
        for column, width in zip(columns, wide, strict=True)
    ]
    least = sum(FOLDED if fold else width for fold, width in zip(folds, wide, strict=True)) + GAP * (len(wide) - 1)
    if least <= screen.width:
        _grid(screen, listed, columns, folds)
    else:
        _paragraphs(screen, listed, columns)


def _grid(screen: Any, rows: Sequence[Row], columns: Sequence[Column], folds: Sequence[bool]) -> None:
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    grid = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column, fold in zip(columns, folds, strict=True):
        grid.add_column(
            Text(column.head),
            justify="right" if _numeric([row.get(column.key) for row in rows]) else "left",
            overflow="fold",
            no_wrap=not fold,
        )
    for row in rows:
        # Text, not str: a value from outside is never read as markup.
        grid.add_row(*(Text(words(row.get(c.key)), style=tint(row.get(c.key)) if c.state else "") for c in columns))
    screen.print(grid)


def _paragraphs(screen: Any, rows: Sequence[Row], columns: Sequence[Column]) -> None:
    """The first column's value, and below it every other that is there, as many to a line as fit."""
    from rich.padding import Padding  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    first, *others = columns
    for row in rows:
        screen.print(Text(words(row.get(first.key)), style="bold"))
        line = Text()
        for column in others:
            value = row.get(column.key)
            if value in (None, ""):
                continue
            fact = Text.assemble((f"{column.head}: ", "dim"), (words(value), tint(value) if column.state else ""))
            if line and GAP + len(line) + GAP + len(fact) > screen.width:
                screen.print(Padding(line, (0, 0, 0, GAP)))
                line = Text()
            line = Text(" " * GAP).join([line, fact]) if line else fact
        screen.print(Padding(line, (0, 0, 0, GAP)))


def _numeric(values: Sequence[Any]) -> bool:
    """Are these numbers, as far as there are any?"""
    there = [value for value in values if value is not None]
    return bool(there) and all(
        isinstance(value, int | float | Decimal | timedelta) and not isinstance(value, bool) for value in there
    )
