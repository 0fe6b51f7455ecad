"""Twenty-four jobs of one second, each due every three seconds: what the bench gives `opsctl jobs run --catalog`."""

from __future__ import annotations

from opslib.run import Run
from opslib.spec import NoParams
from tests.service import node_kit

ALL = node_kit.naps(24, seconds=3, timeout=30)
for _job in ALL:
    globals()[_job.name.replace("-", "_")] = _job
JOBS = {job.name: f"{__name__}:{job.name.replace('-', '_')}" for job in ALL}


def run(run: Run, params: NoParams) -> None:
    """One second of nothing."""
    del params
    node_kit.nap(run, 1.0)
