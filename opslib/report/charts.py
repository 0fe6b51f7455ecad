"""Charts as numbers and places: the macros in `templates/charts.j2` only draw them.

Every chart is 360 wide, what a phone shows without shrinking, and carries its data as a table. A value that is not
known is None: a gap in a line, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from opslib.shown import span

WIDTH, HEIGHT = 360.0, 150.0
LEFT, TOP, BOTTOM = 44.0, 8.0, 20.0
ROW, LABEL = 22.0, 130.0
CELL_LABEL = 110.0

Number = float | int | None
Grid = Sequence[Sequence[str]]


def short(value: Number, unit: str = "") -> str:
    """A number on an axis or in a chart's table: `1.2k`, `3.4 MB`, `5 min`."""
    if value is None:
        return "not known"
    if unit == "s":
        return span(timedelta(seconds=float(value)))
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{' ' if unit == 'B' else ''}{letter}{unit}"
    return f"{value:,.2f}".rstrip("0").rstrip(".") + (f" {unit}" if unit else "")


@dataclass(frozen=True, slots=True)
class Shape:
    """One rectangle or label.

    Attributes:
        x: Left, y: top, of width w and height h.
        tone: Its class.
        text: What it says: the label, or the title of a rectangle.
        tail: Shown at its right end.
    """

    x: float
    y: float
    w: float = 0
    h: float = 0
    tone: str = ""
    text: str = ""
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars: one thing per row.

    Attributes:
        items: Label, value and class of each.
    """

    kind: ClassVar[str] = "bars"
    id: str
    title: str
    desc: str
    items: Sequence[tuple[str, Number, str]]
    unit: str = ""

    @property
    def empty(self) -> bool:
        """Is there nothing to draw?"""
        return not self.items

    @property
    def height(self) -> float:
        """Of the picture."""
        return ROW * max(len(self.items), 1) + 4

    @property
    def shapes(self) -> list[Shape]:
        """A bar and its label for each item."""
        most = max((float(value or 0) for _, value, _ in self.items), default=0) or 1
        room = WIDTH - LABEL - 70
        return [
            Shape(
                LABEL,
                n * ROW + 4,
                max(room * float(value or 0) / most, 1),
                ROW - 8,
                tone,
                label,
                short(value, self.unit),
            )
            for n, (label, value, tone) in enumerate(self.items)
        ]

    @property
    def grid(self) -> Grid:
        """Head and rows of its data."""
        return [("What", "Value"), *((label, short(value, self.unit)) for label, value, _ in self.items)]


@dataclass(frozen=True, slots=True)
class Stacked:
    """Horizontal bars made of parts.

    Attributes:
        parts: Name and class of each part, in order.
        rows: Label, and the value of each part.
    """

    kind: ClassVar[str] = "stacked"
    id: str
    title: str
    desc: str
    parts: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, Mapping[str, Number]]]

    @property
    def empty(self) -> bool:
        """Is there nothing to draw?"""
        return not self.rows

    @property
    def height(self) -> float:
        """Of the picture, with its key."""
        return ROW * (len(self.rows) + 1) + 4

    @property
    def shapes(self) -> list[Shape]:
        """Every part of every row."""
        most = max((sum(float(v or 0) for v in values.values()) for _, values in self.rows), default=0) or 1
        room, made = WIDTH - LABEL - 60, []
        for n, (label, values) in enumerate(self.rows):
            x = LABEL
            for name, tone in self.parts:
                width = room * float(values.get(name) or 0) / most
                if width:
                    made.append(Shape(x, n * ROW + 4, width, ROW - 8, tone, f"{label}, {name}: {short(values[name])}"))
                x += width
        return made

    @property
    def labels(self) -> list[Shape]:
        """Each row's name and sum."""
        return [
            Shape(0, n * ROW + 4, text=label, tail=short(sum(float(v or 0) for v in values.values())))
            for n, (label, values) in enumerate(self.rows)
        ]

    @property
    def legend(self) -> list[Shape]:
        """The key, below."""
        step = WIDTH / max(len(self.parts), 1)
        y = len(self.rows) * ROW + 6
        return [Shape(n * step, y, 10, 10, tone, name) for n, (name, tone) in enumerate(self.parts)]

    @property
    def grid(self) -> Grid:
        """Head and rows of its data."""
        head = ("What", *(name for name, _ in self.parts))
        return [
            head,
            *((label, *(short(values.get(name, 0)) for name, _ in self.parts)) for label, values in self.rows),
        ]


@dataclass(frozen=True, slots=True)
class Line:
    """Lines over time.

    Attributes:
        labels: One per point, in order.
        series: Name, class and values of each line; None: not known.
    """

    kind: ClassVar[str] = "line"
    id: str
    title: str
    desc: str
    labels: Sequence[str]
    series: Sequence[tuple[str, str, Sequence[Number]]]
    unit: str = ""
    height: ClassVar[float] = HEIGHT + 18

    @property
    def empty(self) -> bool:
        """Is there nothing to draw?"""
        return all(value is None for *_, values in self.series for value in values)

    @property
    def most(self) -> float:
        """The top of the axis."""
        return max((float(v) for _, _, values in self.series for v in values if v is not None), default=0) or 1

    def _x(self, n: int) -> float:
        return LEFT + (WIDTH - LEFT - 6) * n / max(len(self.labels) - 1, 1)

    @property
    def paths(self) -> list[tuple[str, str]]:
        """Class and path of each line; it is lifted where a value is not known."""
        drawn = []
        for _, tone, values in self.series:
            path, pen = "", False
            for n, value in enumerate(values):
                if value is not None:
                    y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - float(value) / self.most)
                    path += f"{'L' if pen else 'M'}{self._x(n):.1f} {y:.1f}"
                    # A point alone is a dot.
                    path += "" if pen else "h.1"
                pen = value is not None
            drawn.append((tone, path))
        return drawn

    @property
    def ticks(self) -> list[Shape]:
        """The axis' numbers and the first, middle and last label."""
        ends = [Shape(0, y + 4, text=short(value, self.unit)) for y, value in ((TOP, self.most), (HEIGHT - BOTTOM, 0))]
        places = sorted({0, len(self.labels) // 2, len(self.labels) - 1}) if self.labels else []
        anchors = ("start", "mid", "end") if len(places) == 3 else ("start", "end")  # noqa: PLR2004 - as listed
        below = [
            Shape(self._x(n), HEIGHT - 4, tone=anchor, text=self.labels[n])
            for n, anchor in zip(places, anchors, strict=False)
        ]
        return ends + below

    @property
    def legend(self) -> list[Shape]:
        """The key, below."""
        step = WIDTH / max(len(self.series), 1)
        return [Shape(n * step, HEIGHT + 4, 10, 10, tone, name) for n, (name, tone, _) in enumerate(self.series)]

    @property
    def grid(self) -> Grid:
        """Head and rows of its data."""
        head = ("When", *(name for name, _, _ in self.series))
        return [
            head,
            *(
                (label, *(short(values[n], self.unit) for *_, values in self.series))
                for n, label in enumerate(self.labels)
            ),
        ]


@dataclass(frozen=True, slots=True)
class Strip:
    """A heat strip: a row for each thing, a cell for each piece of time.

    Attributes:
        labels: One per cell.
        rows: Name, and for each cell its class and what it says; an empty class: nothing was due.
    """

    kind: ClassVar[str] = "strip"
    id: str
    title: str
    desc: str
    labels: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[str, str]]]]

    @property
    def empty(self) -> bool:
        """Is there nothing to draw?"""
        return not self.rows

    @property
    def height(self) -> float:
        """Of the picture."""
        return 16.0 * len(self.rows) + 18

    @property
    def shapes(self) -> list[Shape]:
        """Every cell where something was."""
        width = (WIDTH - CELL_LABEL) / max(len(self.labels), 1)
        return [
            Shape(
                CELL_LABEL + n * width,
                row * 16 + 2,
                max(width - 0.6, 0.5),
                12,
                tone,
                f"{name}, {self.labels[n]}: {said}",
            )
            for row, (name, cells) in enumerate(self.rows)
            for n, (tone, said) in enumerate(cells)
            if tone
        ]

    @property
    def names(self) -> list[Shape]:
        """Each row's name."""
        return [Shape(0, row * 16 + 12, text=name) for row, (name, _) in enumerate(self.rows)]

    @property
    def ticks(self) -> list[Shape]:
        """The first and the last label."""
        y = 16.0 * len(self.rows) + 12
        return (
            [
                Shape(CELL_LABEL, y, text=self.labels[0]),
                Shape(WIDTH, y, tone="end", text=self.labels[-1]),
            ]
            if self.labels
            else []
        )

    @property
    def grid(self) -> Grid:
        """Head and rows of its data: only where something was."""
        said = [
            (name, f"{self.labels[n]} {text}")
            for name, cells in self.rows
            for n, (tone, text) in enumerate(cells)
            if tone
        ]
        merged: dict[str, list[str]] = {}
        for name, text in said:
            merged.setdefault(name, []).append(text)
        return [("What", "When and how"), *((name, _short_list(texts)) for name, texts in merged.items())]


@dataclass(frozen=True, slots=True)
class Spark:
    """One small line without axes, its last value beside it."""

    kind: ClassVar[str] = "spark"
    id: str
    title: str
    desc: str
    labels: Sequence[str]
    values: Sequence[Number]
    unit: str = ""
    height: ClassVar[float] = 40.0

    @property
    def empty(self) -> bool:
        """Is there nothing to draw?"""
        return all(value is None for value in self.values)

    @property
    def path(self) -> str:
        """Of the line; values not known are left out."""
        known = [(n, float(v)) for n, v in enumerate(self.values) if v is not None]
        most = max((v for _, v in known), default=0) or 1
        step = 240 / max(len(self.values) - 1, 1)
        return "".join(
            f"{'L' if i else 'M'}{4 + n * step:.1f} {34 - 28 * v / most:.1f}" for i, (n, v) in enumerate(known)
        )

    @property
    def last(self) -> str:
        """The last value in words."""
        return short(self.values[-1] if self.values else None, self.unit)

    @property
    def grid(self) -> Grid:
        """Head and rows of its data."""
        return [
            ("When", "Value"),
            *((label, short(v, self.unit)) for label, v in zip(self.labels, self.values, strict=True)),
        ]


def _short_list(texts: Sequence[str]) -> str:
    """At most a dozen, and how many more."""
    most = 12
    return "; ".join(texts[:most]) + (f"; and {len(texts) - most} more" if len(texts) > most else "")


Chart = Bars | Stacked | Line | Strip | Spark
