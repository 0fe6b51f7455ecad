"""Samples to text: the Prometheus text format 0.0.4 and OpenMetrics 1.0.0.

Our own writer, because the reference one costs about 6 ms per 1,000 series (docs/benchmarks.md) and one
scrape of a large shop has several thousand. Tests hold every page against the reference parsers.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

from opslib.spec import Counter, Histogram, LabelValues, Metric, Sample

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


class Page:
    """One exposition: samples grouped by family, each series once.

    Attributes:
        dropped: Series left out because another sample had the same name and labels.
    """

    def __init__(self) -> None:
        self._families: dict[Metric, dict[LabelValues, tuple[float, ...]]] = {}
        self.dropped = 0

    def add(self, samples: Iterable[Sample]) -> None:
        """Take `samples`; of two with the same labels the first stays."""
        for sample in samples:
            series = self._families.setdefault(sample.metric, {})
            if sample.labels in series:
                self.dropped += 1
            else:
                series[sample.labels] = sample.value

    def render(self, *, openmetrics: bool = False) -> str:
        """The page without OpenMetrics' closing `# EOF`, so that more may follow."""
        lines: list[str] = []
        for metric, series in self._families.items():
            kind = type(metric).__name__.lower()
            family = metric.name.removesuffix("_total") if openmetrics and isinstance(metric, Counter) else metric.name
            escapes = _ESCAPES if openmetrics else _HELP_ESCAPES
            lines.append(f"# HELP {family} {metric.help.translate(escapes)}")
            lines.append(f"# TYPE {family} {kind}")
            for labels, value in series.items():
                pairs = ",".join(f'{k}="{_escape(v)}"' for k, v in zip(metric.labels, labels, strict=True))
                if isinstance(metric, Histogram):
                    lines.extend(_histogram(metric, pairs, value))
                else:
                    lines.append(
                        f"{metric.name}{{{pairs}}} {_number(value[0])}"
                        if pairs
                        else f"{metric.name} {_number(value[0])}"
                    )
        return "\n".join(lines) + "\n" if lines else ""


def _histogram(metric: Histogram, pairs: str, value: tuple[float, ...]) -> Iterable[str]:
    *counts, total = value
    comma = "," if pairs else ""
    bounds = [*map(repr, map(float, metric.buckets)), "+Inf"]
    for bound, count in zip(bounds, accumulate(counts), strict=True):
        yield f'{metric.name}_bucket{{{pairs}{comma}le="{bound}"}} {_number(count)}'
    braces = f"{{{pairs}}}" if pairs else ""
    yield f"{metric.name}_count{braces} {_number(sum(counts))}"
    yield f"{metric.name}_sum{braces} {_number(total)}"


def _escape(value: str) -> str:
    # A lone surrogate cannot be encoded; shown escaped, it stays a series instead of breaking the page.
    return value.translate(_ESCAPES).encode("utf-8", "backslashreplace").decode()


_SAFE_INTEGER = 2.0**53


def _number(value: float) -> str:
    if value == int(value) if abs(value) < _SAFE_INTEGER else False:
        return str(int(value))
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text := repr(value), text)
