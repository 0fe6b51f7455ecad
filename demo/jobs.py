"""Our jobs in the demo: the process that works on them, what an operator has it do, what the page must say of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

import psycopg

from demo.embedded import DATABASE, JOBS_LOGIN, OPERATOR, OPSCTL, ROOT, Stack, environment, opsctl
from demo.processes import Account, Server, StartError, wait_until
from demo.truth import Series, Truth, series
from opslib.areas import runs
from opslib.areas.runs import State

SNAPSHOT = "balance-snapshot"
BACKUP = ("backup-database", "verify-backup")
AFTER = ("restore-drill", "retention", "replicate-objects", "cleanup", "audit-anchor")
"""What else a night brings; none of these waits for another."""
NEVER = "2099-01-01"
BY = "the demo's night"
PATIENCE_SECONDS = 120.0


class Jobs(Server):
    """`opsctl jobs run` as a process.

    Args:
        stack: The servers.
        settings: Beside the database: what its jobs may use.
        truth: Where what happened is counted.
        scheduler: Run what is due by the clock, too. A check does without: what happens then depends on the hour.
    """

    def __init__(self, stack: Stack, settings: Mapping[str, str], truth: Truth, *, scheduler: bool) -> None:
        self._stack = stack
        self._truth = truth
        self._last: dict[str, State] = {}
        options = () if scheduler else ("--no-scheduler",)
        super().__init__(
            "the jobs",
            [*OPSCTL, "jobs", "run", *options],
            log=stack.directory / "jobs.log",
            ready=self._there,
            account=Account.ours(),
            env=environment({**settings, "DATABASE_URL": stack.postgres.dsn(DATABASE, JOBS_LOGIN)}),
            cwd=ROOT,
        )

    def _there(self) -> bool:
        with psycopg.connect(self._stack.dsn) as connection:
            return connection.execute("SELECT FROM ops.job_workers").rowcount > 0

    async def night(self) -> None:
        """Nobody waits for half past one: what is due at night is done now."""
        await self.backed_up()
        await asyncio.to_thread(self._done, *AFTER)

    async def backed_up(self) -> None:
        """A backup is written, and read again to its end."""
        for job in BACKUP:
            await asyncio.to_thread(self._done, job)

    def _done(self, *jobs: str) -> None:
        """Queue a run of each, as a schedule would, and wait for all of them.

        Raises:
            StartError: One did not succeed.
            TimeoutError: One does not end.
        """
        dsn = self._stack.postgres.dsn(DATABASE, JOBS_LOGIN)
        with psycopg.connect(dsn, autocommit=True) as connection:
            queued = {job: runs.enqueue(connection, job, triggered_by=BY) for job in jobs}
            for job, run in queued.items():
                wait_until(partial(_over, connection, run), PATIENCE_SECONDS, f"run {run} of {job}", every=0.1)
                row = runs.run(connection, run)
                if row["state"] != State.SUCCESS:
                    raise StartError(f"{job} ended {row['state']}: {row['error']}")
                self._ended(job, State.SUCCESS)

    async def reconsidered(self) -> None:
        """Of two runs of one job an operator cancels the first and waits for the second."""
        await self.cancelled()
        await self.worked()

    async def cancelled(self) -> None:
        """An operator queues a run for much later, and thinks better of it."""
        run = (await self._operator("enqueue", SNAPSHOT, "--at", NEVER)).strip()
        await self._operator("cancel", run)
        self._ended(SNAPSHOT, State.CANCELLED)

    async def worked(self) -> None:
        """An operator wants the providers' balances kept now, and waits for it."""
        await self._operator("enqueue", SNAPSHOT, "--wait")
        self._ended(SNAPSHOT, State.SUCCESS)

    def _ended(self, job: str, outcome: State) -> None:
        self._truth.count("ops_job_runs_total", job_name=job, outcome=outcome)
        self._truth.count("ops_job_duration_seconds_count", job_name=job, outcome=outcome)
        self._last[job] = outcome

    async def _operator(self, *arguments: str) -> str:
        dsn = self._stack.postgres.dsn(DATABASE, OPERATOR)
        return await asyncio.to_thread(opsctl, "jobs", *arguments, "--reason", "to show it", "--yes", DATABASE_URL=dsn)

    def gauges(self) -> dict[Series, float]:
        """What every gauge that is not 0 must show once nothing runs."""
        return {
            series("ops_job_last_outcome", job_name=job, outcome=outcome): 1.0 for job, outcome in self._last.items()
        }


def _over(connection: psycopg.Connection, run: int) -> bool:
    """Has it ended, or failed once? That it is tried again in five minutes nobody waits for."""
    row = runs.run(connection, run)
    return row["state"] not in {State.QUEUED, State.RUNNING} or row["retry_at"] is not None
