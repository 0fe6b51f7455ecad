"""Keep the application's feature flags as the file declares them.

Invariant: what the file wants is live within a minute, a change made by hand is reported with who and when, and a
temporary override is put back when its time is over. A file that cannot be used changes nothing.
Source: `opslib/areas/flags.py`, `flag_plan.py`, `flag_sync.py`; published by `exporters/flags.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel

from opslib.areas import flag_sync
from opslib.areas.flag_plan import State, Verdict
from opslib.run import Run
from opslib.spec import Every, Job, NoParams

JOB = Job(
    name=flag_sync.NAME,
    title="Feature flags",
    schedule=Every(60),  # an override that outlives its time by five minutes is a broken promise
    max_age=900,
    timeout=120,
    needs=("DATABASE_URL", "OPS_FLAGS_FILE"),
)


class Difference(BaseModel):
    """One flag that is, or was, not as the file wants it.

    Attributes:
        key: Which.
        wanted: By the file, or an override.
        live: What the application had.
        why: In words.
        changed_by: Who changed it by hand, as far as the application says.
        changed_at: When.
    """

    key: str
    wanted: bool | None
    live: bool | None
    why: str
    changed_by: str | None
    changed_at: datetime | None


class Result(BaseModel):
    """What a sync found.

    Attributes:
        applied: Set to what is wanted.
        drift: Changed by hand, and left so.
        unknown: Declared; the application has no such flag.
        undeclared: The application has it; the file does not.
        in_sync: How many are as wanted now.
    """

    applied: list[Difference]
    drift: list[Difference]
    unknown: list[str]
    undeclared: list[str]
    in_sync: int


def run(run: Run, params: NoParams) -> Result:
    """Compare three ways, apply what changed in the file, report what changed by hand.

    Raises:
        JobError: The file cannot be used, or the application refused.
        SourceError: A database is away.
    """
    del params
    verdicts = flag_sync.sync(run.settings)
    result = Result(
        applied=_differences([verdict for verdict in verdicts if verdict.apply]),
        drift=_differences(_of(verdicts, State.DRIFT)),
        unknown=[verdict.key for verdict in _of(verdicts, State.UNKNOWN)],
        undeclared=[verdict.key for verdict in _of(verdicts, State.UNDECLARED)],
        in_sync=len(_of(verdicts, State.IN_SYNC)),
    )
    for each in result.applied:
        run.log.info("flag_applied", flag=each.key, value=each.wanted, why=each.why, changed_by=each.changed_by)
    for each in result.drift:
        run.log.warning("flag_drift", flag=each.key, why=each.why, changed_by=each.changed_by, at=each.changed_at)
    return result


def _of(verdicts: Sequence[Verdict], state: State) -> list[Verdict]:
    return [verdict for verdict in verdicts if verdict.state is state]


def _differences(verdicts: Sequence[Verdict]) -> list[Difference]:
    return [
        Difference(
            key=verdict.key,
            wanted=verdict.wanted,
            live=verdict.live,
            why=verdict.why,
            changed_by=verdict.changed_by,
            changed_at=verdict.changed_at,
        )
        for verdict in verdicts
    ]
