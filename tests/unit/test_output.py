"""How commands print: the same rows for a person, for a program and for a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import click
import pytest
from click.testing import CliRunner

from opsctl import output
from opsctl.output import Column, Output
from opslib.shown import defused

AT = datetime(2026, 1, 1, 14, 30, 5, 123456, tzinfo=timezone(timedelta(hours=2)))
ROWS: list[dict[str, Any]] = [
    {"id": "a", "status": "fulfilled", "total": Decimal("12.50000000"), "created_at": AT, "paid": True},
    {"id": '=HYPERLINK("x")', "status": "failed", "total": Decimal("-5.00"), "created_at": None, "paid": False},
]


@click.command()
@output.printed
def shown(*, output: Output) -> None:
    """List."""
    output.rows(ROWS, ["id", Column("status", state=True), Column("total", "EUR"), "created_at", "paid"])


def run(*arguments: str, code: int = 0) -> str:
    """What it prints."""
    ended = CliRunner().invoke(shown, arguments)
    assert ended.exit_code == code, ended.output
    return ended.output


def test_a_person_reads_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads in words, money with two places, times in UTC to the second; no colour in a pipe, no line cut."""
    monkeypatch.delenv("COLUMNS", raising=False)
    head, first, second = run().splitlines()
    assert head.split() == ["Id", "Status", "EUR", "Created", "at", "Paid"]
    assert first.split() == ["a", "fulfilled", "12.50", "2026-01-01", "12:30:05", "yes"]
    assert second.split() == ['=HYPERLINK("x")', "failed", "-5.00", "-", "no"]


def test_a_program_reads_json() -> None:
    """Numbers are numbers, times ISO 8601 in UTC."""
    first, second = json.loads(run("--json"))
    assert first == {
        "id": "a",
        "status": "fulfilled",
        "total": 12.5,
        "created_at": "2026-01-01T12:30:05.123456Z",
        "paid": True,
    }
    assert (second["total"], second["created_at"]) == (-5.0, None)
    assert json.loads(output.to_json(Decimal("0.12345678901234567890"))) == "0.12345678901234567890"


def test_a_spreadsheet_reads_csv_and_runs_nothing() -> None:
    """A text like a formula is defused; a number keeps its sign."""
    head, first, second = csv.reader(io.StringIO(run("--csv")))
    assert head == ["id", "status", "total", "created_at", "paid"]
    assert first == ["a", "fulfilled", "12.50000000", "2026-01-01T12:30:05.123456Z", "true"]
    assert second == ['\'=HYPERLINK("x")', "failed", "-5.00", "", "false"]


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1"])
def test_every_beginning_of_a_formula_is_defused(text: str) -> None:
    """Those a spreadsheet looks at, with the blanks it takes away before it looks."""
    assert defused(text) == f"'{text}"
    assert [defused(harmless) for harmless in ("a=1", "", 5, -5, None)] == ["a=1", "", 5, -5, None]


def test_both_at_once_is_wrong_use() -> None:
    """In either order."""
    assert "exclude each other" in run("--json", "--csv", code=2)
    assert "exclude each other" in run("--csv", "--json", code=2)


def test_nothing_is_said_in_words_or_as_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    """A program is never told in words."""
    for style, expected in (("table", "no order\n"), ("json", "[]\n"), ("csv", "id\n")):
        Output(style).rows([], ["id"], nothing="no order")
        assert capsys.readouterr().out == expected


def test_a_value_from_outside_is_neither_markup_nor_a_command_to_the_terminal() -> None:
    """Brackets stay, escapes and line ends become blanks."""
    assert output.words("\x1b[31mred\x1b[0m\nnext") == " [31mred [0m next"
    assert output.words({"at": datetime(2026, 1, 1, tzinfo=UTC)}) == '{"at": "2026-01-01T00:00:00Z"}'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 s"), (0.058, "58 ms"), (4.23, "4.2 s"), (12, "12 s"), (61, "1 min 1 s"), (3600, "1 h")),
        *((86400 * 3 + 7200 + 5, "3 d 2 h"), (-1.5, "-1.5 s"), (-90, "-1 min 30 s")),
    ],
)
def test_spans_are_said_in_two_units(seconds: float, text: str) -> None:
    """The largest two."""
    assert output.span(timedelta(seconds=seconds)) == text


def test_a_narrow_terminal_gets_paragraphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit as a table is told row by row, whole; where it fits, it is a table."""
    monkeypatch.setenv("COLUMNS", "44")
    lines = [line.rstrip() for line in run().splitlines()]
    assert lines == [
        "a",
        "  Status: fulfilled  EUR: 12.50",
        "  Created at: 2026-01-01 12:30:05  Paid: yes",
        '=HYPERLINK("x")',
        "  Status: failed  EUR: -5.00  Paid: no",
    ]
    monkeypatch.setenv("COLUMNS", "64")
    assert run().splitlines()[0].split() == ["Id", "Status", "EUR", "Created", "at", "Paid"]


def test_a_long_text_folds_before_a_table_is_given_up(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Ids, states and numbers stay in one piece; an empty column stands to the left."""
    monkeypatch.setenv("COLUMNS", "60")
    reason = "the supplier did not answer within the time it has"
    Output().rows([{"id": "a" * 24, "n": 7, "reason": reason, "none": None}], ["id", "n", "none", "reason"])
    head, first, second, *_ = capsys.readouterr().out.splitlines()
    assert head.index("None") == first.index("-")
    assert first.startswith("a" * 24 + "  7  -     the supplier")
    assert second.strip()
