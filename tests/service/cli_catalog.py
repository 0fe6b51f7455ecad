"""Jobs the tests of `opsctl jobs` run: one that takes its time, one that fails, one that wants parameters."""

from __future__ import annotations

import time

from pydantic import BaseModel, ConfigDict, Field

from opslib.errors import JobError
from opslib.run import Run
from opslib.settings import Settings
from opslib.spec import Job


class Target(BaseModel):
    """Where to."""

    model_config = ConfigDict(extra="forbid")

    bucket: str
    token: str = ""


class Params(BaseModel):
    """What it is to do."""

    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(default=0.2, gt=0, description="How long it takes.")
    fail: bool = False
    targets: list[Target] = Field(default=[], description="Where to copy.")


class Result(BaseModel):
    """What it did."""

    steps: int


def planned(settings: Settings, params: Params) -> list[str]:
    """How long it would take."""
    del settings
    return [f"sleep {params.seconds:g} s"]


JOB = Job(name="nap", title="Sleep a little", schedule=None, timeout=60, params=Params, plan=planned)
JOBS = {"nap": f"{__name__}:JOB"}


def run(run: Run, params: Params) -> Result:
    """Sleep in steps of a twentieth of a second."""
    steps = round(params.seconds * 20)
    for step in range(steps):
        run.check_cancelled()
        run.progress(step, steps, unit="steps", note="zzz")
        time.sleep(0.05)
    if params.fail:
        raise JobError("woken too early")
    return Result(steps=steps)
