"""Samples to text: the Prometheus text format 0.0.4 and OpenMetrics 1.0.0.

Our own writer, because the reference one costs about 6 ms per 1,000 series (docs/benchmarks.md) and one
scrape of a large shop has several thousand. Tests hold every page against the reference parsers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from operator import add

from opslib.spec import Counter, Histogram, LabelValues, Metric, Sample

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


@dataclass(frozen=True, slots=True)
class Block:
    """Series of one family, written already.

    Attributes:
        metric: The family. Whoever writes blocks of it is the only one who adds to it: nobody looks for duplicates.
        text: Their lines, the last one without its newline; empty if there is none.
    """

    metric: Metric
    text: str


Part = Sample | Block
"""What a page is made of."""


class Page:
    """One exposition: samples grouped by family, each series once.

    Attributes:
        dropped: Series left out because another sample had the same name and labels.
    """

    def __init__(self) -> None:
        self._families: dict[Metric, dict[LabelValues, tuple[float, ...]]] = {}
        self._blocks: dict[Metric, list[str]] = {}
        self.dropped = 0

    def add(self, parts: Iterable[Part]) -> None:
        """Take `parts`; of two samples with the same labels the first stays."""
        for part in parts:
            series = self._families.setdefault(part.metric, {})
            if isinstance(part, Block):
                self._blocks.setdefault(part.metric, []).append(part.text)
            elif part.labels in series:
                self.dropped += 1
            else:
                series[part.labels] = part.value

    def render(self, *, openmetrics: bool = False) -> str:
        """The page without OpenMetrics' closing `# EOF`, so that more may follow."""
        lines: list[str] = []
        for metric, series in self._families.items():
            written = [text for text in self._blocks.get(metric, ()) if text]
            if not series and not written:
                continue
            kind = type(metric).__name__.lower()
            family = metric.name.removesuffix("_total") if openmetrics and isinstance(metric, Counter) else metric.name
            escapes = _ESCAPES if openmetrics else _HELP_ESCAPES
            lines.append(f"# HELP {family} {metric.help.translate(escapes)}")
            lines.append(f"# TYPE {family} {kind}")
            lines += written
            if isinstance(metric, Histogram):
                lines += [histogram_template(metric, labels) % _states(value) for labels, value in series.items()]
            else:
                lines += [head(metric, labels) + number(value[0]) for labels, value in series.items()]
        lines.append("")
        return "\n".join(lines)


class Sheet:
    """Counters and histograms as text, of which only what changed is written again.

    A count that is kept for ever is read far more often than it moves: a shop with 200 queues has 6,000 lines of
    them, of which a scrape finds some dozen changed.
    """

    def __init__(self) -> None:
        self._lines: dict[Metric, dict[LabelValues, str]] = {}
        self._blocks: dict[Metric, Block] = {}

    def write(self, series: Mapping[tuple[Metric, LabelValues], tuple[float, ...]]) -> None:
        """These are the values now."""
        for (metric, labels), value in series.items():
            if isinstance(metric, Histogram):
                text = histogram_template(metric, labels) % _states(value)
            else:
                text = head(metric, labels) + number(value[0])
            self._lines.setdefault(metric, {})[labels] = text
            self._blocks.pop(metric, None)

    def clear(self) -> None:
        """Begin anew."""
        self._lines.clear()
        self._blocks.clear()

    def blocks(self) -> list[Block]:
        """Every family's lines."""
        for metric in self._lines.keys() - self._blocks.keys():
            self._blocks[metric] = Block(metric, "\n".join(self._lines[metric].values()))
        return [self._blocks[metric] for metric in self._lines]


class Family:
    """One family of gauges with one label, written again and again: what stays is kept.

    Args:
        metric: The family.
    """

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._labels: list[str] = []
        self._values: list[float] = []
        self._heads: list[str] = []
        self._block = Block(metric, "")

    def block(self, labels: Iterable[str], values: Iterable[float]) -> Block:
        """One line per label, with as many values."""
        now, numbers = list(labels), list(values)
        if now != self._labels:
            self._labels, self._values, self._heads = now, [], [head(self._metric, (label,)) for label in now]
        if numbers != self._values or not numbers:
            self._values = numbers
            self._block = Block(self._metric, "\n".join(map(add, self._heads, map(number, numbers))))
        return self._block


def head(metric: Metric, labels: LabelValues) -> str:
    """A line up to its number; worth keeping."""
    return f"{metric.name}{{{pairs}}} " if (pairs := _pairs(metric, labels)) else f"{metric.name} "


def histogram_template(metric: Histogram, labels: LabelValues) -> str:
    """The lines of a histogram, with places for its cumulative counts, their total, and the sum as text."""
    pairs = _pairs(metric, labels).replace("%", "%%")
    comma = "," if pairs else ""
    name, braces = metric.name, f"{{{pairs}}}" if pairs else ""
    buckets = [f'{name}_bucket{{{pairs}{comma}le="{bound}"}} %d\n' for bound in _bounds(metric)]
    return f"{''.join(buckets)}{name}_count{braces} %d\n{name}_sum{braces} %s"


def _bounds(metric: Histogram) -> list[str]:
    return [*map(repr, map(float, metric.buckets)), "+Inf"]


def _states(value: tuple[float, ...]) -> tuple[float | str, ...]:
    *counts, total = value
    cumulative = list(accumulate(counts))
    return (*cumulative, cumulative[-1], number(total))


def _pairs(metric: Metric, labels: LabelValues) -> str:
    return ",".join([f'{name}="{_escape(value)}"' for name, value in zip(metric.labels, labels, strict=True)])


@lru_cache(maxsize=4096)  # the same few names stand in line after line
def _escape(value: str) -> str:
    # A lone surrogate cannot be encoded; shown escaped, it stays a series instead of breaking the page.
    return value.translate(_ESCAPES).encode("utf-8", "backslashreplace").decode()


_SAFE_INTEGER = 2.0**53


def number(value: float) -> str:
    """A value as text."""
    if type(value) is int:
        return str(value)
    if -_SAFE_INTEGER < value < _SAFE_INTEGER and value == (whole := int(value)):
        return str(whole)
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text := repr(value), text)
