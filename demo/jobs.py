"""Our jobs in the demo: the process that works on them, what an operator has it do, what the page must say of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import psycopg

from demo.embedded import DATABASE, JOBS_LOGIN, OPERATOR, OPSCTL, ROOT, Stack, environment, opsctl
from demo.processes import Account, Server
from demo.truth import Series, Truth, series

SNAPSHOT = "balance-snapshot"
BACKUP = ("backup-database", "verify-backup")
AFTER = ("restore-drill", "retention", "replicate-objects", "cleanup", "audit-anchor")
"""What else a night brings; none of these waits for another."""
NEVER = "2099-01-01"


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
        self._last: dict[str, str] = {}
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
        await asyncio.gather(*map(self._ran, AFTER))

    async def backed_up(self) -> None:
        """A backup is written, and read again to its end."""
        for job in BACKUP:
            await self._ran(job)

    async def cancelled(self) -> None:
        """An operator queues a run for much later, and thinks better of it."""
        run = (await self._operator("enqueue", SNAPSHOT, "--at", NEVER)).strip()
        await self._operator("cancel", run)
        self._ended(SNAPSHOT, "CANCELLED")

    async def worked(self) -> None:
        """An operator wants the providers' balances kept now, and waits for it."""
        await self._ran(SNAPSHOT)

    async def _ran(self, job: str) -> None:
        await self._operator("enqueue", job, "--wait")
        self._ended(job, "SUCCESS")

    def _ended(self, job: str, outcome: str) -> None:
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
