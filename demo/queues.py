"""Real BullMQ: producers and workers of the official Python package on the application's queues.

Names, attempts and habits are the application's: completed jobs are removed, failed ones stay, and the queue
`fulfillment` has producers but no worker. (Nobody ever saw a job of `payments-queue`; ours get a made-up name.)
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bullmq import Job, Queue

from demo.processes import Account, Server
from demo.truth import Series, Truth, series
from demo.worker import JobError, SteadyWorker, play

FULFILLMENT = "fulfillment-queue"
CATALOG = "catalog"
PAYMENTS = "payments-queue"
ORPHAN = "fulfillment"
"""Has producers and no worker: jobs pile up for ever."""

WORKED = (FULFILLMENT, CATALOG, PAYMENTS)
QUEUES = (*WORKED, ORPHAN)

ATTEMPTS = {
    (FULFILLMENT, "reserve"): 5,
    (FULFILLMENT, "fetch-keys"): 3,
    (FULFILLMENT, "kinguin.order.completed"): 5,
    (FULFILLMENT, "kinguin.order.failed"): 5,
    (CATALOG, "sync-single-product"): 3,
    (CATALOG, "catalog.sync.imported"): 1,
    (CATALOG, "reprice"): 1,
    (PAYMENTS, "poll-payment"): 3,
    (ORPHAN, "fetch-keys"): 3,
    (ORPHAN, "order-canceled"): 1,
}

NODE = "bullmq:5.63.0"
"""The application's BullMQ; the scripts of the Python package do the same to Redis."""

STATES = ("waiting", "active", "completed", "failed", "delayed", "paused", "prioritized", "waiting_children")
STALLED_MS = 5_000
BACKOFF_MS = 150
SOON_SECONDS = 600
"""A delayed job due later than this is there to stay: nobody waits for it at the end."""

Handler = Callable[[Job], Awaitable[None]]


class Queues:
    """All queues with their producers and workers.

    Args:
        url: The Redis they live in.
        directory: For the log of the worker that runs in a process of its own.
        truth: Is told of every job.
        fulfil: Does a job of the fulfilment queue, once it is due to succeed.
    """

    def __init__(self, url: str, directory: Path, truth: Truth, fulfil: Handler) -> None:
        self._truth = truth
        self._fulfil = fulfil
        self._queues: dict[str, Queue] = {}
        self._workers: list[SteadyWorker] = []
        self._url = url
        self._at_rest: Counter[tuple[str, str]] = Counter()
        self._next_delayed: dict[str, int] = {}
        self._first_waiting: dict[str, int] = {}
        self.catalog_worker = Server(
            "the catalog worker",
            [sys.executable, "-m", "demo.worker", url, CATALOG],
            log=directory / "worker.log",
            ready=lambda: True,
            account=Account.ours(),
            cwd=Path(__file__).parents[1],
        )

    async def open(self) -> None:
        """Start producers and workers."""
        self._queues = {name: Queue(name, {"connection": self._url}) for name in QUEUES}
        for queue in self._queues.values():
            # As the application's client, Node's, notes it; without it `opsctl` refuses to write.
            await queue.client.hset(f"{queue.prefix}:{queue.name}:meta", "version", NODE)
        options = {"connection": self._url, "stalledInterval": STALLED_MS}

        async def fulfil(job: Job, _token: str) -> dict[str, bool]:
            await play(job)
            await self._fulfil(job)
            return {"done": True}

        async def pay(job: Job, _token: str) -> dict[str, bool]:
            await play(job)
            return {"done": True}

        self._workers = [
            SteadyWorker(FULFILLMENT, fulfil, {**options, "concurrency": 5}),
            SteadyWorker(PAYMENTS, pay, {**options, "concurrency": 2}),
        ]
        for worker in self._workers:
            worker.on("error", self._erred)
            worker.on("failed", self._failed)
        await asyncio.to_thread(self.catalog_worker.start)

    def _erred(self, exc: Exception, *_: object) -> None:
        # On a busy machine a job may end while its lock is being renewed; one that lost it is counted as stalled.
        if "could not renew lock" not in str(exc):
            self._truth.faults.append(f"BullMQ worker: {exc!r}")

    def _failed(self, job: Job, exc: Exception) -> None:
        if not isinstance(exc, JobError):  # it was not told to
            self._truth.faults.append(f"job {job.id} {job.name}: {exc!r}")

    async def close(self) -> None:
        """Stop them."""
        await asyncio.to_thread(self.catalog_worker.stop)
        for worker in self._workers:
            await worker.close(force=True)
        for queue in self._queues.values():
            await queue.close()

    async def add(
        self,
        queue: str,
        name: str,
        data: dict[str, Any] | None = None,
        *,
        failures: int = 0,
        delay_ms: int = 0,
        priority: int = 0,
        job_id: str | None = None,
    ) -> Job:
        """Add a job that fails `failures` times before it succeeds; above its attempts it fails for good."""
        attempts = ATTEMPTS[queue, name]
        options: dict[str, Any] = {
            "attempts": attempts,
            "backoff": {"type": "exponential", "delay": BACKOFF_MS},
            "removeOnComplete": True,
            "removeOnFail": False,
        }
        if delay_ms:
            options["delay"] = delay_ms
        if priority:
            options["priority"] = priority
        if job_id:
            options["jobId"] = job_id
        job = await self._queues[queue].add(name, {**(data or {}), "failures": failures}, options)
        self._account(queue, name, job, failures=failures, delay_ms=delay_ms, priority=priority)
        return job

    def _account(self, queue: str, name: str, job: Job, *, failures: int, delay_ms: int, priority: int) -> None:
        attempts = ATTEMPTS[queue, name]
        if delay_ms > SOON_SECONDS * 1000:
            self._at_rest[queue, "delayed"] += 1
            due = job.timestamp + delay_ms
            self._next_delayed[queue] = min(due, self._next_delayed.get(queue, due))
        elif queue == ORPHAN:
            self._at_rest[queue, "prioritized" if priority else "waiting"] += 1
            self._first_waiting.setdefault(queue, job.timestamp)
        else:
            self._truth.job(queue, name, attempts=attempts, failures=failures)
            if failures >= attempts:
                self._at_rest[queue, "failed"] += 1

    async def retry(self, queue: str, job_id: str) -> bool:
        """Put a failed job back in line, as an administrator does; false if there is none. The truth is not told."""
        if queue not in self._queues:
            return False
        job = await Job.fromId(self._queues[queue], job_id)
        if job is None or await job.getState() != "failed":
            return False
        await job.retry("failed")
        return True

    async def pause(self, queue: str, seconds: float) -> None:
        """Pause a queue for a while."""
        await self._queues[queue].pause()
        await asyncio.sleep(seconds)
        await self._queues[queue].resume()

    async def stall(self) -> None:
        """A worker dies in the middle of a job: the job is found stalled, runs again and succeeds."""
        job = await self.add(CATALOG, "sync-single-product", {"hang": True})
        deadline = time.monotonic() + 20
        while await job.getState() != "active":
            if time.monotonic() > deadline:
                self._truth.faults.append(f"the catalog worker did not take a job: {self.catalog_worker.tail()}")
                return
            await asyncio.sleep(0.05)
        await asyncio.to_thread(self.catalog_worker.kill)
        await asyncio.to_thread(self.catalog_worker.start)
        self._truth.count("bitloot_queue_stalled_total", queue=CATALOG)
        # It began once more than it was told to fail.
        self._truth.count("bitloot_job_wait_seconds_count", queue=CATALOG, name="sync-single-product")

    async def unfinished(self) -> int:
        """Jobs that workers still have to do."""
        left = 0
        for name in WORKED:
            queue = self._queues[name]
            counts = await queue.getJobCounts("wait", "active", "paused", "prioritized", "delayed", "waiting-children")
            left += sum(counts.values()) - self._at_rest[name, "delayed"]
        return left

    def gauges(self) -> dict[Series, float]:
        """What every queue must show at rest."""
        expected: dict[Series, float] = {}
        for queue in QUEUES:
            for state in STATES:
                expected[series(f"bitloot_queue_{state}", queue=queue)] = self._at_rest[queue, state]
            expected[series("bitloot_queue_is_paused", queue=queue)] = 0
            expected[series("bitloot_queue_worker_present", queue=queue)] = queue in WORKED
            if queue in self._next_delayed:
                due = self._next_delayed[queue] / 1000
                expected[series("bitloot_queue_next_delayed_timestamp_seconds", queue=queue)] = due
        return expected

    def waiting_since(self) -> dict[str, float]:
        """Since when the oldest job of each queue nobody serves has been waiting, Unix seconds."""
        return {queue: first / 1000 for queue, first in self._first_waiting.items()}
