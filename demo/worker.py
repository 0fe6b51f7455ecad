"""A worker in a process of its own, so that it can be killed in the middle of a job as a crash would.

`python -m demo.worker <redis url> <queue>` works until SIGTERM. Jobs say themselves how they go, see `play`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

from bullmq import Job, Worker

LOCK_MS = 2_000
"""How long a dead worker's lock outlives it; 30 s in production. Long enough for a busy machine to renew it."""

STALLED_MS = 1_000
"""How often this worker looks for stalled jobs; 30 s in production."""


class JobError(Exception):
    """A job fails because it was told to."""


class SteadyWorker(Worker):  # type: ignore[misc]  # published without types
    """A worker whose sign of life, the key `stalled-check`, has no long gaps.

    The key lives exactly as long as the timer runs. On a Redis this near it is sometimes still there when the timer
    fires, is then not set again, and is missing for the whole next round. A few milliseconds later it is always gone.
    """

    async def runStalledJobsCheck(self) -> None:  # noqa: N802 - the base class's name
        """Look for stalled jobs, and give the sign of life."""
        await asyncio.sleep(0.005)
        await super().runStalledJobsCheck()


async def play(job: Job) -> None:
    """Do what a job's data says: take `ms`, hang for ever on the first run if `hang`, fail the first `failures` runs.

    Raises:
        JobError: This run was to fail.
    """
    if job.data.get("hang") and job.attemptsStarted == 1:
        await asyncio.Event().wait()
    await asyncio.sleep(job.data.get("ms", 0) / 1000)
    if job.attemptsMade < job.data.get("failures", 0):
        raise JobError("upstream answered 503")


async def _work(url: str, queue: str) -> None:
    async def process(job: Job, _token: str) -> dict[str, Any]:
        await play(job)
        return {"done": True}

    options = {"connection": url, "concurrency": 1, "lockDuration": LOCK_MS, "stalledInterval": STALLED_MS}
    worker = SteadyWorker(queue, process, options)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await worker.close()


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1], sys.argv[2]))
