"""What the tests of jobs share: a run without the engine, that remembers what it was told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from opslib import settings
from opslib.run import Progress, Run


def a_run(
    job: str,
    *,
    slot: datetime | None = None,
    progress: list[Progress] | None = None,
    is_cancelled: Callable[[], bool] = lambda: False,
    **env: str,
) -> Run:
    """The first attempt of a run with these settings and no others."""
    told = [] if progress is None else progress
    return Run(
        id=1,
        job=job,
        settings=settings.load(env),
        slot=slot,
        attempt=1,
        triggered_by="schedule",
        report=told.append,
        is_cancelled=is_cancelled,
    )
