"""One thing wrong with the contract, in words an operator can act on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What does not fit, and what to do.

    Attributes:
        where: The view, column, query, role or check it is about.
        problem: What is wrong, with the server's own words where it has any.
        remedy: What to do next.
    """

    where: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.where}: {self.problem}; {self.remedy}"
