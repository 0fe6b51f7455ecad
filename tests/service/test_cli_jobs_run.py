"""`opsctl jobs run` as an operator starts it: what it refuses, and that it leaves when it is told to."""

from __future__ import annotations

import signal
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from demo.postgres import PostgresServer
from demo.processes import wait_until
from opsctl import catalog
from opsctl.commands.jobs_run import run
from opslib import runner
from opslib.errors import ConfigError
from tests.service import node_kit
from tests.service.node_kit import Node


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--no-worker", "--no-scheduler"], "leave nothing to do"),
        (["--concurrency", "nowhere=1"], "no job uses the queue nowhere"),
    ],
)
def test_what_makes_no_sense(arguments: list[str], message: str) -> None:
    """It says so before it connects to anything."""
    result = CliRunner().invoke(run, arguments)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)


def test_a_concurrency_that_is_none() -> None:
    """QUEUE=N, N a number."""
    for wrong in ("default", "=1", "default=x", "default=-1"):
        result = CliRunner().invoke(run, ["--concurrency", wrong])
        assert result.exit_code == 2
        assert "is not QUEUE=N" in result.output


def test_our_own_jobs_can_be_loaded() -> None:
    """Each is listed under its name, is due at some time, and if scheduled needs no parameters."""
    assert runner.load(catalog.JOBS).keys() == catalog.JOBS.keys()


def test_declares_and_leaves(own_postgres: PostgresServer, tmp_path: Path) -> None:
    """Started twice, each time it is there, with what it takes, and gone without a trace at SIGTERM, with status 0."""
    owner, dsn = node_kit.ops_database(own_postgres)
    for _ in range(2):
        node = Node("node", node_kit.OPSCTL, ["--concurrency", "default=2"], owner=owner, dsn=dsn, directory=tmp_path)
        node.start()
        try:
            with psycopg.connect(owner) as connection:
                declared = {job for (job,) in connection.execute("SELECT job FROM ops.jobs WHERE retired_at IS NULL")}
                assert declared == set(catalog.JOBS)
                assert connection.execute("SELECT queues ->> 'default' FROM ops.job_workers").fetchone() == ("2",)
            assert node._process
            node._process.send_signal(signal.SIGTERM)
            wait_until(lambda node=node: not node.running, 60, "it to leave")
            assert node._process.returncode == 0
        finally:
            node.stop()
        with psycopg.connect(owner) as connection:
            assert connection.execute("SELECT count(*) FROM ops.job_workers").fetchone() == (0,)
    assert '"event": "jobs_started"' in node.log.read_text()
    assert "Traceback" not in node.log.read_text()
