"""What a page is made of: plain data, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import IntEnum
from typing import Any

from opslib.report.charts import Chart
from opslib.shown import tint, words

WORD = 16
"""Characters of a word that is never broken; of a UUID's pieces the longest has twelve."""
CLIP = 300
"""Characters of one cell on a page; CSV and NDJSON hold all of them."""


class Level(IntEnum):
    """How a day was; the worst finding decides."""

    GREEN = 0
    ATTENTION = 1
    BROKEN = 2

    @property
    def word(self) -> str:
        """For people."""
        return self.name.capitalize()


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, in words that finish a sentence.

    Attributes:
        level: How bad.
        text: `3 orders are paid and not fulfilled`.
    """

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Gap:
    """A source that could not be read.

    Attributes:
        what: What it would have told.
        why: Why not.
    """

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Kpi:
    """One number with what it is compared to.

    Attributes:
        name: For people.
        value: As shown.
        deltas: What it is against: `(yesterday, +12 %)`.
    """

    name: str
    value: str
    deltas: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: As shown; bounded, and no character of it is invisible.
        href: Where it leads; empty: nowhere.
        tone: A class that colours it: `ok`, `warn`, `bad`, or empty.
        links: More links behind the text.
    """

    text: str
    href: str = ""
    tone: str = ""
    links: Sequence[tuple[str, str]] = ()

    @property
    def tight(self) -> bool:
        """Are its words short enough to stay whole? Else a column of long ones would break all others to pieces."""
        return max(map(len, re.split(r"[\s-]", self.text))) <= WORD


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        key: Of the row.
        title: Its head.
        state: Holds a state's word, and is coloured by it.
        number: Stands to the right.
    """

    key: str
    title: str
    state: bool = False
    number: bool = False


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row; `id` is its anchor, or empty."""

    cells: Sequence[Cell]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        caption: What it lists.
        columns: Their heads.
        rows: In order.
        nothing: What is said where there is no row.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[TableRow]
    nothing: str = "Nothing."


@dataclass(slots=True)
class Section:
    """One part of a page.

    Attributes:
        id: Its anchor.
        title: Its heading.
        lead: One sentence: as of when, and how to read it.
        kpis: Numbers on top.
        charts: Pictures, each with its data.
        tables: Rows.
        gaps: What could not be read.
        findings: What is wrong.
        notes: What else must be known.
        links: Pages that say more.
    """

    id: str
    title: str
    lead: str = ""
    kpis: list[Kpi] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first thing read.

    Attributes:
        level: Of the worst finding; a gap is attention at least.
        sentence: Which, and why.
    """

    level: Level
    sentence: str

    @classmethod
    def of(cls, sections: Iterable[Section]) -> Verdict:
        """The worst findings of all sections, then what could not be read."""
        every = list(sections)
        findings = sorted((f for s in every for f in s.findings), key=lambda finding: -finding.level)
        # Two things unread for the same reason are said as one.
        gaps = list({gap.why: gap.what for section in reversed(every) for gap in reversed(section.gaps)}.values())[::-1]
        level = max([finding.level for finding in findings] + [Level.ATTENTION] * bool(gaps), default=Level.GREEN)
        parts = [finding.text for finding in findings[:MOST]]
        if len(findings) > MOST:
            parts.append(f"{len(findings) - MOST} more")
        if gaps:
            parts.append(f"could not read {', '.join(gaps[:MOST])}" + (" and more" if len(gaps) > MOST else ""))
        if not parts:
            return cls(level, "Green: nothing needs anybody.")
        return cls(level, f"{level.word}: {'; '.join(parts)}.")


MOST = 4
"""Reasons one sentence can hold."""


@dataclass(frozen=True, slots=True)
class Report:
    """A page of a day or a week.

    Attributes:
        title: `Thursday 2026-11-19`.
        first: Its first day.
        last: Its last one.
        verdict: Its sentence.
        sections: In order.
        through: Up to when its data goes; None: the database could not be asked.
        generated: When it was made.
    """

    title: str
    first: date
    last: date
    verdict: Verdict
    sections: Sequence[Section]
    through: datetime | None
    generated: datetime


TONES = {"green": "ok", "yellow": "warn", "red": "bad", "": ""}


def visible(text: str) -> str:
    """Text with every character seen: one that hides or turns writing around as its code, line ends as blanks."""
    if len(text) <= CLIP and text.isprintable():
        return text
    shown = "".join(
        char if char.isprintable() else " " if char in "\r\n\t" else f"\\u{ord(char):04x}" for char in text[: CLIP + 1]
    )
    return shown if len(text) <= CLIP else f"{shown[:CLIP]}… ({len(text):,} characters)"


def cell(value: Any, *, state: bool = False, href: str = "", links: Sequence[tuple[str, str]] = ()) -> Cell:
    """A value as a person reads it."""
    text = visible(value) if isinstance(value, str) else words(value)
    if len(text) > CLIP and not isinstance(value, str):
        text = visible(text)
    return Cell(text, href, TONES[tint(value)] if state else "", links)


def table(
    caption: str, columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], nothing: str = "Nothing."
) -> Table:
    """A table of plain rows."""
    made = [TableRow([cell(row.get(c.key), state=c.state) for c in columns]) for row in rows]
    return Table(caption, columns, made, nothing)
