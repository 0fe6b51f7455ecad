"""What really happened: the numbers `/metrics` must show, kept by the traffic itself and by nothing of ours.

Counters are added up as events are made. Gauges are asked of the shop's and the queues' own models once all is at rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

Series = tuple[str, tuple[tuple[str, str], ...]]
"""A metric's name and its labels in alphabetical order."""


def series(name: str, /, **labels: str) -> Series:
    """One series. A label that is a Python word is given with an underscore behind it (`from_`)."""
    return name, tuple(sorted((label.rstrip("_"), value) for label, value in labels.items()))


def show(of: Series) -> str:
    """A series as Prometheus writes it."""
    name, labels = of
    return name + ("{" + ",".join(f'{label}="{value}"' for label, value in labels) + "}" if labels else "")


@dataclass(slots=True)
class Truth:
    """Expected values by series.

    Attributes:
        counters: How often each thing happened; histograms by the name of their `_count`.
        faults: What went wrong in the demo itself; nothing may be concluded while there is any.
    """

    counters: Counter[Series] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def count(self, name: str, /, times: int = 1, **labels: str) -> None:
        """It happened."""
        self.counters[series(name, **labels)] += times

    def webhook(self, provider: str, outcome: str) -> None:
        """A webhook call came in."""
        self.count("bitloot_webhook_total", provider=provider, outcome=outcome)
        if provider == "nowpayments" and outcome in {"ok", "invalid"}:
            self.count("bitloot_ipn_total", status=outcome)

    def reclassified(self, provider: str, before: str, after: str) -> None:
        """A call that was counted turned out differently."""
        self.count("bitloot_webhook_reclassified_total", provider=provider, from_=before, to=after)

    def job(self, queue: str, name: str, *, attempts: int, failures: int) -> None:
        """A job is in a queue with workers, and will fail this often before it succeeds, if it may."""
        failed = failures >= attempts
        runs = attempts if failed else failures + 1
        self.count("bitloot_queue_jobs_total", queue=queue, result="failed" if failed else "completed", name=name)
        if runs > 1:
            self.count("bitloot_queue_retries_total", runs - 1, queue=queue, name=name)
        # How long the last run took, and how long each run had been waited for.
        self.count("bitloot_job_duration_seconds_count", queue=queue, name=name)
        self.count("bitloot_job_wait_seconds_count", runs, queue=queue, name=name)

    def __iter__(self) -> Iterator[tuple[Series, float]]:
        """Every counter and its value."""
        return iter((of, float(value)) for of, value in self.counters.items())
