"""The exporter's page, read with Prometheus' own reference parser."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from demo.truth import Series


@dataclass(frozen=True, slots=True)
class Page:
    """One reading.

    Attributes:
        values: Every sample except the buckets and sums of histograms.
        families: The family each sample belongs to.
    """

    values: dict[Series, float]
    families: dict[Series, str]

    @classmethod
    def parse(cls, text: str) -> Page:
        """Read a page.

        Raises:
            ValueError: It is no valid exposition.
        """
        values: dict[Series, float] = {}
        families: dict[Series, str] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if family.type == "histogram" and not sample.name.endswith("_count"):
                    continue
                of = (sample.name, tuple(sorted(sample.labels.items())))
                values[of] = sample.value
                # The parser names a counter's family without its `_total`.
                families[of] = sample.name if family.type != "histogram" else family.name
        return cls(values, families)
