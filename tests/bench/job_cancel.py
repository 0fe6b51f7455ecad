"""How long a run takes to hear that it is cancelled: queued, running, and running while Postgres restarts."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.rows import dict_row

from demo import postgres
from demo.embedded import ROOT, environment
from demo.postgres import PostgresServer
from demo.processes import Account, Server, private_directory, wait_until
from opslib.areas import runs
from opslib.areas.runs import State
from opslib.contract import migrate
from tests.bench.line import Line
from tests.service.cli_catalog import Params

CANCELS = 20
RESTARTS = 5
TARGET = 2000.0
CATALOG = "tests.service.cli_catalog:JOBS"


def run() -> Iterator[Line]:
    """One worker on a server of our own."""
    with private_directory() as directory, postgres.postgres(directory) as server:
        with server.connect() as admin:
            admin.execute("CREATE DATABASE cancels")
        dsn = server.dsn("cancels")
        migrate.up(dsn)

        def there() -> bool:
            with psycopg.connect(dsn) as connection:
                return connection.execute("SELECT FROM ops.job_workers").rowcount > 0

        worker = Server(
            "the worker",
            [sys.executable, "-m", "opsctl.cli", "jobs", "run", "--catalog", CATALOG],
            log=directory / "worker.log",
            ready=there,
            account=Account.ours(),
            env=environment({"DATABASE_URL": dsn}),
            cwd=ROOT,
        )
        with worker:
            with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
                yield Line("cancel, queued, p95", _p95([_queued(connection) for _ in range(CANCELS)]), "target", 50, 1)
                times = [_running(connection, _going(connection)) for _ in range(CANCELS)]
                yield Line("cancel, running: acknowledged, p95", _p95(times), "target", TARGET, 1)
            took = [_restarted(server, dsn) for _ in range(RESTARTS)]
            yield Line("at once after a restart of Postgres: acknowledged, longest", max(took), "target", TARGET, 1)


def _restarted(server: PostgresServer, dsn: str) -> float:
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        going = _going(connection)
    server.restart()
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        return _running(connection, going)


def _queued(connection: psycopg.Connection[Any]) -> float:
    """Milliseconds to cancel a run that waits."""
    run = runs.enqueue(connection, "nap", Params(), triggered_by="bench", foreground=True)  # no worker takes it
    started = time.perf_counter()
    assert runs.cancel(connection, run, "bench") is State.CANCELLED
    return (time.perf_counter() - started) * 1000


def _going(connection: psycopg.Connection[Any]) -> int:
    run = runs.enqueue(connection, "nap", Params(seconds=60), triggered_by="bench")
    wait_until(lambda: runs.run(connection, run)["progress"], 20, "the run to get on")
    return run


def _running(connection: psycopg.Connection[Any], run: int) -> float:
    """Milliseconds until the job knew, on the database's clock; then it ended as cancelled."""
    assert runs.cancel(connection, run, "bench") is State.RUNNING
    wait_until(lambda: runs.run(connection, run)["state"] == State.CANCELLED, 15, "the run to end")
    row = runs.run(connection, run)
    heard: float = (row["cancel_acknowledged"] - row["cancel_requested"]).total_seconds() * 1000
    return heard


def _p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20)[18]
