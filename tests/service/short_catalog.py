"""Eight jobs of 0.4 seconds, each due every second, for nodes whose time is short."""

from __future__ import annotations

from opslib.run import Run
from opslib.spec import NoParams
from tests.service import node_kit

ALL = node_kit.naps(8, seconds=1, timeout=30)
for _job in ALL:
    globals()[_job.name.replace("-", "_")] = _job
JOBS = {job.name: f"{__name__}:{job.name.replace('-', '_')}" for job in ALL}


def run(run: Run, params: NoParams) -> None:
    """0.4 seconds of nothing."""
    del params
    node_kit.nap(run, 0.4)
