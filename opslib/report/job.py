"""What the jobs that make a report have in common: make it, put it where it is read, say so."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel

from opslib.report import make
from opslib.run import Run


class Published(BaseModel):
    """What was published.

    Attributes:
        place: Below each root.
        level: How the day or the week was.
        verdict: In one sentence.
        files: How many.
        removed: Reports that were too old, by root.
    """

    place: str
    level: str
    verdict: str
    files: int
    removed: dict[str, list[str]]


def publish(run: Run, build: Callable[[Callable[[str], None]], make.Made]) -> Published:
    """Make a report and put it there.

    Args:
        run: Whose run; it may be cancelled between two steps.
        build: Makes it, and says what it does next.

    Raises:
        ConfigError: No database is set, or no place to put it.
        JobError: One of the places could not be written.
    """

    def tick(note: str) -> None:
        run.progress(note=note)
        run.check_cancelled()

    made = build(tick)
    removed = make.publish(run.settings, made, tick)
    return Published(place=made.place, files=len(made.files), removed=removed, **made.entry)
