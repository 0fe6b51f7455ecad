"""`opsctl jobs run` in short time: `python -m tests.service.short_node MODULE:NAME [--no-worker|--no-scheduler]`."""

from __future__ import annotations

import asyncio
import sys

from opsctl import catalog
from opslib import log, runner, settings
from opslib.jobs.timing import Timing

TIMING = Timing(
    beat=0.5,
    worker_silent=5,
    run_beat=1,
    run_silent=60,
    watch=0.5,
    reap=0.3,
    settle=1,
    kill_grace=1,
    drain=3,
    poll=1,
    retry=0.2,
    sweep=1,
)


def main() -> None:
    """Serve until SIGTERM."""
    target, *flags = sys.argv[1:]
    loaded = settings.load()
    log.configure(loaded)
    asyncio.run(
        runner.serve(
            loaded,
            catalog.load(target),
            worker="--no-worker" not in flags,
            scheduler="--no-scheduler" not in flags,
            timing=TIMING,
        )
    )


if __name__ == "__main__":
    main()
