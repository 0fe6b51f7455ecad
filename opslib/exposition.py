"""Samples to text: the Prometheus text format 0.0.4 and OpenMetrics 1.0.0.

Our own writer, because the reference one costs about 6 ms per 1,000 series (docs/benchmarks.md) and one
scrape of a large shop has several thousand. What does not change is kept as written, and compressed, from one scrape
to the next. Tests hold every page against the reference parsers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from operator import add

from opslib.packed import Piece
from opslib.spec import Counter, Histogram, LabelValues, Metric, Sample

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
CHUNK = 32  # series written together: fewer compress worse, more are written again for one that moved
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


class Block(Piece):
    """Series of one family, written already.

    Args:
        metric: The family. Whoever writes blocks of it is the only one who adds to it: nobody looks for duplicates.
        lines: One line or several each, without their newline.
    """

    __slots__ = ("metric",)

    def __init__(self, metric: Metric, lines: Iterable[str]) -> None:
        text = "\n".join(lines)
        super().__init__(text + "\n" if text else "")
        self.metric = metric


Part = Sample | Block
"""What a page is made of."""


class Page:
    """One exposition: samples grouped by family, each series once.

    Attributes:
        dropped: Series left out because another sample had the same name and labels.
    """

    def __init__(self) -> None:
        self._families: dict[Metric, dict[LabelValues, tuple[float, ...]]] = {}
        self._blocks: dict[Metric, list[Block]] = {}
        self.dropped = 0

    def add(self, parts: Iterable[Part]) -> None:
        """Take `parts`; of two samples with the same labels the first stays."""
        for part in parts:
            series = self._families.setdefault(part.metric, {})
            if isinstance(part, Block):
                self._blocks.setdefault(part.metric, []).append(part)
            elif part.labels in series:
                self.dropped += 1
            else:
                series[part.labels] = part.value

    def pieces(self, *, openmetrics: bool = False) -> list[Piece]:
        """The page without OpenMetrics' closing `# EOF`, so that more may follow."""
        pieces: list[Piece] = []
        fresh: list[str] = []  # what is written for this page only: compressed together
        for metric, series in self._families.items():
            kept = [block for block in self._blocks.get(metric, ()) if block.body]
            if not series and not kept:
                continue
            if kept:
                if fresh:
                    pieces.append(Piece("\n".join([*fresh, ""])))
                    fresh = []
                pieces += [_title(metric, openmetrics=openmetrics), *kept]
            else:
                fresh.append(_title_text(metric, openmetrics=openmetrics))
            if isinstance(metric, Histogram):
                fresh += [histogram_template(metric, labels) % _states(value) for labels, value in series.items()]
            else:
                fresh += [head(metric, labels) + number(value[0]) for labels, value in series.items()]
        if fresh:
            pieces.append(Piece("\n".join([*fresh, ""])))
        return pieces


class Sheet:
    """Counters and histograms as text, of which only what changed is written again.

    A count that is kept for ever is read far more often than it moves: a shop with 200 queues has 6,000 lines of
    them, of which a scrape finds some dozen changed.
    """

    def __init__(self) -> None:
        self._chunks: dict[Metric, list[_Chunk]] = {}
        self._where: dict[tuple[Metric, LabelValues], tuple[_Chunk, int]] = {}

    def write(self, series: Iterable[tuple[tuple[Metric, LabelValues], Sequence[float]]]) -> None:
        """These are the values now."""
        for key, value in series:
            metric, labels = key
            found = self._where.get(key)
            chunk, line = found or self._place(key)
            if isinstance(metric, Histogram):
                text = histogram_template(metric, labels) % _states(value)
            elif found:
                before = chunk.lines[line]
                text = before[: before.rindex(" ") + 1] + number(value[0])
            else:
                text = head(metric, labels) + number(value[0])
            chunk.lines[line] = text
            chunk.block = None

    def _place(self, key: tuple[Metric, LabelValues]) -> tuple[_Chunk, int]:
        chunks = self._chunks.setdefault(key[0], [])
        if not chunks or len(chunks[-1].lines) >= CHUNK:
            chunks.append(_Chunk())
        place = self._where[key] = chunks[-1], len(chunks[-1].lines)
        chunks[-1].lines.append("")
        return place

    def clear(self) -> None:
        """Begin anew."""
        self._chunks.clear()
        self._where.clear()

    def blocks(self) -> list[Block]:
        """Every family's lines."""
        return [chunk.written(metric) for metric, chunks in self._chunks.items() for chunk in chunks]


class _Chunk:
    """Some series of a family, written and compressed together."""

    __slots__ = ("block", "lines")

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.block: Block | None = None

    def written(self, metric: Metric) -> Block:
        if self.block is None:
            self.block = Block(metric, self.lines)
        return self.block


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
        self._block = Block(metric, ())

    def block(self, labels: Iterable[str], values: Iterable[float]) -> Block:
        """One line per label, with as many values."""
        now, numbers = list(labels), list(values)
        if now != self._labels:
            self._labels, self._values, self._heads = now, [], [head(self._metric, (label,)) for label in now]
        if numbers != self._values or not numbers:
            self._values = numbers
            self._block = Block(self._metric, map(add, self._heads, map(number, numbers)))
        return self._block


@lru_cache(maxsize=1024)
def _title(metric: Metric, *, openmetrics: bool) -> Piece:
    return Piece(_title_text(metric, openmetrics=openmetrics) + "\n")


def _title_text(metric: Metric, *, openmetrics: bool) -> str:
    kind = type(metric).__name__.lower()
    family = metric.name.removesuffix("_total") if openmetrics and isinstance(metric, Counter) else metric.name
    escapes = _ESCAPES if openmetrics else _HELP_ESCAPES
    return f"# HELP {family} {metric.help.translate(escapes)}\n# TYPE {family} {kind}"


def head(metric: Metric, labels: LabelValues) -> str:
    """A line up to its number; worth keeping."""
    return f"{metric.name}{{{pairs}}} " if (pairs := _pairs(metric, labels)) else f"{metric.name} "


@lru_cache(maxsize=2048)  # 2.5 MB at most
def histogram_template(metric: Histogram, labels: LabelValues) -> str:
    """The lines of a histogram, with places for its cumulative counts, their total, and the sum as text."""
    pairs = _pairs(metric, labels).replace("%", "%%")
    comma = "," if pairs else ""
    name, braces = metric.name, f"{{{pairs}}}" if pairs else ""
    buckets = [f'{name}_bucket{{{pairs}{comma}le="{bound}"}} %d\n' for bound in _bounds(metric)]
    return f"{''.join(buckets)}{name}_count{braces} %d\n{name}_sum{braces} %s"


def _bounds(metric: Histogram) -> list[str]:
    return [*map(repr, map(float, metric.buckets)), "+Inf"]


def _states(value: Sequence[float]) -> tuple[float | str, ...]:
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
_NO_NUMBERS = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}


def number(value: float) -> str:
    """A value as text."""
    if type(value) is int:
        return str(value)
    if -_SAFE_INTEGER < value < _SAFE_INTEGER and value == (whole := int(value)):
        return str(whole)
    return _NO_NUMBERS.get(text := repr(value), text)
