"""What a board and its panels ARE: frozen data. PromQL and SQL are literal; `dashboards.py` makes JSON of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from opslib.alerting import Unit


class Source(StrEnum):
    """A data source by its uid, as grafana/provisioning/datasources names it."""

    PROMETHEUS = "bitloot-prometheus"
    APP = "bitloot-app"
    """The application's database, through the views of `ops_view`."""
    OPS = "bitloot-ops"
    """Our own tables, which may live in another database."""


class Look(StrEnum):
    """How a panel draws; the values are Grafana's ids of panel types."""

    STAT = "stat"
    SERIES = "timeseries"
    BARS = "bargauge"
    GAUGE = "gauge"
    HEATMAP = "heatmap"
    TIMELINE = "state-timeline"
    TABLE = "table"


class Colour(StrEnum):
    """Colours by meaning, in Grafana's names, so that the theme decides the shade."""

    GOOD = "green"
    WATCH = "orange"
    BAD = "red"
    BUSY = "blue"
    QUIET = "text"
    """Neither good nor bad; also what is not known."""


@dataclass(frozen=True, slots=True)
class Prom:
    """A query of Prometheus.

    Attributes:
        expr: PromQL.
        legend: Of each series: `{{queue}}`.
    """

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Sql:
    """A query of a database, whose rows are shown as a table.

    Attributes:
        source: Which database.
        text: The statement, with Grafana's variables and macros.
    """

    source: Source
    text: str


@dataclass(frozen=True, slots=True)
class Link:
    """Where a click on a table's cell leads.

    Attributes:
        column: Of this column.
        title: For people.
        url: With `${__value.raw}` for the cell and `${__url_time_range}`.
    """

    column: str
    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: For people.
        means: What it shows and what to do about it.
        unit: What its numbers are; of a table, what those are that `units` does not name.
        look: How it draws.
        queries: What it asks; all of one source.
        width: Of the board's 24 columns.
        height: In rows of some 30 pixels.
        empty: What stands there when there is nothing; absence is mostly good news.
        steps: From which value on which colour holds. Below the first one, and of what is not known, none does.
        words: Text and colour instead of a value.
        units: Of single columns, or of series by their names.
        colours: Of single series, by a regular expression on their names.
        links: Of a table's cells.
        hidden: Columns of a table not shown.
        names: Other headings of a table's columns.
    """

    title: str
    means: str
    unit: Unit
    look: Look
    queries: tuple[Prom | Sql, ...]
    width: int = 8
    height: int = 8
    empty: str = "no data"
    steps: tuple[tuple[float, Colour], ...] = ()
    words: Mapping[str, tuple[str, Colour]] = field(default_factory=dict)
    units: Mapping[str, Unit] = field(default_factory=dict)
    colours: Mapping[str, Colour] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    hidden: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the panels below it."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class TextBox:
    """A variable to type into; empty is no filter."""

    name: str
    label: str
    means: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A variable to choose from a query's answer.

    Attributes:
        name: As `${name}`.
        label: For people.
        means: What it filters.
        query: A statement with one column, or PromQL of `label_values(metric, label)`.
        any: Literal text that stands for all of them: `''` in SQL, `.*` in PromQL.
    """

    name: str
    label: str
    means: str
    query: Prom | Sql
    any: str


@dataclass(frozen=True, slots=True)
class Pick:
    """A variable to choose from a fixed list, the first being what it begins with.

    Attributes:
        any: As of `Choice`; empty: one must be chosen.
    """

    name: str
    label: str
    means: str
    values: tuple[str, ...]
    any: str = ""


Variable = TextBox | Choice | Pick


@dataclass(frozen=True, slots=True)
class Board:
    """One board.

    Attributes:
        uid: Of its address; also its file's name.
        title: For people.
        means: What question it answers.
        rows: From the most to the least urgent.
        variables: Filters.
        refresh: How often it asks anew.
        span: How far back it looks at first, `6h` unless its facts are rarer.
    """

    uid: str
    title: str
    means: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    refresh: str = "1m"
    span: str = "6h"

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of them, in order."""
        return tuple(panel for row in self.rows for panel in row.panels)
