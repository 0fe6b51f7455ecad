"""Prometheus takes a counter that goes back for a restart, and counts it all again: it must never happen."""

from __future__ import annotations

from demo.page import Page
from demo.truth import Series, show


class Monotonic:
    """Looks at page after page.

    Attributes:
        faults: Counters that went back.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._seen: dict[Series, float] = {}

    def see(self, page: Page) -> None:
        """The next page."""
        for of, value in page.values.items():
            if of[0].startswith(("bitloot_", "ops_job_")) and of[0].endswith(("_total", "_count")):
                if value < self._seen.get(of, 0):
                    self.faults.append(f"{show(of)} went back from {self._seen[of]:g} to {value:g}")
                self._seen[of] = value
