"""What a job sees of the run it is in: its settings, where to say how far it is, and whether to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from opslib.errors import CancelledError
from opslib.settings import Settings


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        done: Units finished.
        total: Of how many; None when nobody can know.
        unit: What they are: `bytes`, `rows`, `objects`.
        note: What it does right now.
    """

    done: float = 0
    total: float | None = None
    unit: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt of one run, as the job's `run(run, params)` is given it.

    Attributes:
        id: The run, as `opsctl jobs run-details ID` takes it.
        job: The job's name.
        settings: Every setting.
        slot: The time it was due, UTC; None when a person asked for it.
        attempt: From 1.
        triggered_by: `schedule`, or the operator who asked.
        report: Where progress goes; the engine writes it at most once a second.
        is_cancelled: Has somebody asked for the run to stop?
    """

    id: int
    job: str
    settings: Settings
    slot: datetime | None
    attempt: int
    triggered_by: str
    report: Callable[[Progress], None]
    is_cancelled: Callable[[], bool]

    @property
    def log(self) -> Any:
        """A logger that names job and run in each line."""
        return structlog.get_logger().bind(job=self.job, run=self.id, attempt=self.attempt)

    def progress(self, done: float = 0, total: float | None = None, *, unit: str = "", note: str = "") -> None:
        """Say how far it is. Cheap: call it as often as you like."""
        self.report(Progress(done, total, unit, note))

    def check_cancelled(self) -> None:
        """Stop here if somebody asked for it; call it wherever stopping leaves nothing broken.

        Call it right before what cannot be taken back: a process frozen until its run was given to another one does not
        return from here.

        Raises:
            CancelledError: Stop.
        """
        if self.is_cancelled():
            raise CancelledError(f"run {self.id} of {self.job} was cancelled")
