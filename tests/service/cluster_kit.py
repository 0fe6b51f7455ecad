"""The engine in this process on a database of its own, as a member of ops_jobs: what its tests share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import psycopg
from psycopg.rows import dict_row

from demo.postgres import PostgresServer
from opslib import runner, settings
from opslib.areas import runs
from opslib.jobs.timing import Timing
from tests.service import attempt_jobs, node_kit, short_node
from tests.service.attempt_jobs import Params

TIMING = replace(short_node.TIMING, worker_silent=45, watch=1, sweep=5)
"""Silence is as long as in production: nobody seems dead because the machine is busy."""
BY_WORD = replace(TIMING, poll=600)
"""Nobody asks for work: what was queued is learned from a notification, or never."""
WAIT = 60.0
Rows = list[dict[str, Any]]


class Cluster:
    """The database, as people see it, and processes to come and go.

    Args:
        owner: Its DSN as the owner.
        dsn: As a worker logs in.
    """

    def __init__(self, owner: str, dsn: str) -> None:
        self.owner = owner
        self.settings = settings.load({"OPS_DATABASE_URL": dsn})
        self.people = psycopg.connect(owner, autocommit=True)

    @contextlib.asynccontextmanager
    async def node(
        self, jobs: Mapping[str, str] = attempt_jobs.JOBS, timing: Timing = TIMING, **options: Any
    ) -> AsyncIterator[asyncio.Task[None]]:
        """One that serves until the block ends."""
        serving = asyncio.create_task(runner.serve(self.settings, jobs, timing=timing, **options))
        await eventually(lambda: serving.done() or self.rows("SELECT 1 FROM ops.job_workers"))
        try:
            yield serving
        finally:
            if not serving.done():
                os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(serving, WAIT)

    def rows(self, sql: str, *params: Any) -> Rows:
        """As the owner."""
        with self.people.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(sql.encode(), params).fetchall()

    def enqueue(self, job: str = "once", **params: Any) -> int:
        """As a person does."""
        options = {name: params.pop(name) for name in ("priority", "at") if name in params}
        return runs.enqueue(self.people, job, Params(**params), triggered_by="anna", **options)

    def run(self, number: int) -> dict[str, Any]:
        """As a person sees it."""
        return runs.run(self.people, number)

    async def state(self, number: int, *states: str) -> dict[str, Any]:
        """Wait until it is in one of these."""
        await eventually(lambda: self.run(number)["state"] in states)
        return self.run(number)

    def again(self) -> None:
        """Connect anew, after a restart."""
        self.people.close()
        self.people = psycopg.connect(self.owner, autocommit=True)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for it, however busy the machine is."""
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110 - a database is asked
            await asyncio.sleep(0.02)


def opened(server: PostgresServer) -> Iterator[Cluster]:
    """One on a database of its own, for a fixture."""
    name = f"ops_{time.monotonic_ns():x}"
    made = Cluster(*node_kit.ops_database(server, name))
    yield made
    made.people.close()
    with server.connect() as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        admin.execute(f"DROP ROLE {name}_worker")
