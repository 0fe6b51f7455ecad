"""One measured ratio."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """Ours against theirs, or against a target.

    Attributes:
        what: The thing measured.
        ours: Our median.
        against: What it is held against.
        theirs: Its median in the same run, or the target.
        bound: The ratio ours / theirs must not exceed.
        unit: Of both.
    """

    what: str
    ours: float
    against: str
    theirs: float
    bound: float
    unit: str = " ms"

    @property
    def met(self) -> bool:
        """Is the ratio within its bound?"""
        return self.ours / self.theirs <= self.bound

    def cells(self) -> tuple[str, ...]:
        """For the table."""
        return (
            self.what,
            f"{self.ours:.2f}{self.unit}",
            self.against,
            f"{self.theirs:.2f}{self.unit}",
            f"{self.ours / self.theirs:.2f}",
            f"≤ {self.bound:g}",
        )
