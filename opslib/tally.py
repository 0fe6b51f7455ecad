"""Counts in memory, and the part of them that the page may show.

A count becomes *durable* when the checkpoint that holds it is committed; only durable values are exposed, so that
no crash ever makes a counter step back. Without a checkpoint store every count is exposed as it is made.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from opslib.exposition import Block, Sheet
from opslib.spec import Counter, Histogram, LabelValues, Metric, Sample

Key = tuple[Metric, LabelValues]
Values = dict[Key, tuple[float, ...]]


class Tally:
    """Counters and histograms of one exporter.

    Args:
        metrics: The families it may count.
        durable_only: Expose only what `commit` confirmed.
    """

    def __init__(self, metrics: Iterable[Metric], *, durable_only: bool) -> None:
        self._metrics: Mapping[str, Metric] = {metric.name: metric for metric in metrics}
        self._live: dict[Key, list[float]] = {}
        self._durable: Values = {}
        self._changed: set[Key] = set()
        self._durable_only = durable_only
        self._sheet = Sheet()
        self._unwritten: set[Key] = set()

    def add(self, metric: Counter, *labels: str, amount: float = 1) -> None:
        """Count `amount` more; 0 makes the series exist."""
        self._state((metric, labels), 1)[0] += amount

    def observe(self, metric: Histogram, value: float, *labels: str) -> None:
        """Count `value` in its bucket."""
        state = self._state((metric, labels), metric.width)
        state[bisect_left(metric.buckets, value)] += 1
        state[-1] += value

    def _state(self, key: Key, width: int) -> list[float]:
        self._changed.add(key)
        if key not in self._live:
            self._live[key] = [0.0] * width
        return self._live[key]

    def samples(self) -> list[Sample]:
        """What the page may show now."""
        shown: Mapping[Key, Sequence[float]] = self._durable if self._durable_only else self._live
        return [Sample(metric, labels, tuple(value)) for (metric, labels), value in shown.items()]

    def blocks(self) -> list[Block]:
        """The same, written; cheap when little has changed since the last call."""
        shown: Mapping[Key, Sequence[float]] = self._durable if self._durable_only else self._live
        changed = self._unwritten if self._durable_only else self._changed  # without a store nobody else takes these
        self._sheet.write([(key, shown[key]) for key in changed])
        changed.clear()
        return self._sheet.blocks()

    def labels(self, metric: Metric) -> set[LabelValues]:
        """The label values `metric` has been counted under so far, shown or not."""
        return {labels for counted, labels in self._live if counted is metric}

    def take(self) -> Values:
        """The values changed since the last call, to be saved; `commit` or `put_back` them."""
        taken = {key: tuple(self._live[key]) for key in self._changed}
        self._changed.clear()
        return taken

    def put_back(self, taken: Values) -> None:
        """Saving failed: they are still to be saved."""
        self._changed.update(taken)

    def commit(self, taken: Values) -> None:
        """Saving succeeded: they may be shown."""
        self._durable.update(taken)
        self._unwritten.update(taken)

    def restore(self, series: Mapping[str, Sequence[float]]) -> None:
        """Begin from what a checkpoint holds.

        A series of a family that no longer exists, or that changed its labels or buckets, is left where it is and
        not shown.
        """
        self._live.clear()
        self._durable.clear()
        self._changed.clear()
        self._unwritten.clear()
        self._sheet.clear()
        for text, value in series.items():
            name, *labels = json.loads(text)
            metric = self._metrics.get(name)
            width = metric.width if isinstance(metric, Histogram) else 1
            if metric is not None and len(labels) == len(metric.labels) and len(value) == width:
                self._live[metric, tuple(labels)] = list(value)
                self._durable[metric, tuple(labels)] = tuple(value)
        self._unwritten.update(self._durable)


def series_name(key: Key) -> str:
    """How a checkpoint names a series: a JSON array of the metric's name and its label values."""
    metric, labels = key
    return json.dumps([metric.name, *labels])
