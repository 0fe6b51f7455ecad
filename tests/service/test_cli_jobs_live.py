"""`opsctl jobs` beside a worker: waiting, running here, cancelling, watching; each login may what it must."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from demo.postgres import PostgresServer
from demo.processes import wait_until
from opslib.areas import runs
from opslib.contract import migrate
from tests.service.run_kit import Engine

SCRIPT = """
from opsctl import catalog
from opsctl.cli import main
from tests.service.cli_catalog import JOBS

catalog.JOBS = JOBS
main()
"""
OPSCTL = (sys.executable, "-c", SCRIPT)
BY_HAND = ("--reason", "a test", "--yes")
ROOT = Path(__file__).parents[2]
WAIT = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """A database, and who may what in it.

    Attributes:
        owner: Its owner's connection.
        dsn: Of the owner, the operator (ops_staff), the worker (ops_jobs), and who is both.
    """

    owner: psycopg.Connection[dict[str, Any]]
    dsn: dict[str, str]

    def run(self, who: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`opsctl jobs …` to its end."""
        return subprocess.run(
            [*OPSCTL, "jobs", *arguments],
            env=self.env(who),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def start(self, who: str, *arguments: str, **how: Any) -> subprocess.Popen[str]:
        """`opsctl jobs …` as a process."""
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL, **how}
        return subprocess.Popen(
            [*OPSCTL, "jobs", *arguments], env=self.env(who), cwd=ROOT, text=True, start_new_session=True, **how
        )

    def env(self, who: str) -> dict[str, str]:
        """The environment of one of them."""
        return {"PATH": os.environ["PATH"], "DATABASE_URL": self.dsn[who], "OPS_LOG_LEVEL": "warning"}

    def row(self, run: int | str) -> dict[str, Any]:
        """A run as it stands."""
        row = self.owner.execute("SELECT * FROM ops_view.job_runs WHERE id = %s", (int(run),)).fetchone()
        assert row is not None
        return row

    def newest(self) -> int:
        """The number of the newest run; 0 without one."""
        row = self.owner.execute("SELECT coalesce(max(id), 0) AS id FROM ops_view.job_runs").fetchone()
        assert row is not None
        return int(row["id"])


@pytest.fixture
def place(database: str) -> Iterator[Place]:
    """A database with logins of its own, on the server all tests share."""
    with _place(database) as place:
        yield place


@contextlib.contextmanager
def _place(database: str) -> Iterator[Place]:
    names = {role: f"t_{role}_{uuid4().hex[:8]}" for role in ("staff", "jobs", "both")}
    with psycopg.connect(database, autocommit=True, row_factory=dict_row) as owner:
        for role, name in names.items():
            groups = "ops_staff, ops_jobs" if role == "both" else f"ops_{role}"
            owner.execute(f"CREATE ROLE {name} LOGIN IN ROLE {groups}")
        try:
            yield Place(owner, {role: make_conninfo(database, user=name) for role, name in names.items()})
        finally:
            with psycopg.connect(database, autocommit=True) as again:  # the server may have been restarted
                again.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY (%s)",
                    (list(names.values()),),
                )
                for name in names.values():
                    again.execute(f"DROP ROLE {name}")


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """It is gone after the block, whatever happens there."""
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


@pytest.fixture
def worker(place: Place) -> Iterator[None]:
    """`opsctl jobs run`, ready."""
    with _worker(place):
        yield


@contextlib.contextmanager
def _worker(place: Place) -> Iterator[None]:
    process = place.start("jobs", "run", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with ended(process):
        wait_until(
            lambda: place.owner.execute("SELECT FROM ops.job_workers").rowcount,
            30,
            "the worker to say that it is there",
        )
        yield


@pytest.mark.usefixtures("worker")
def test_wait_ends_as_the_run_does(place: Place) -> None:
    """0 for a success, 1 for a failure, the number alone on standard output; an operator needs no right of a worker."""
    good = place.run("staff", "enqueue", "nap", "--wait", *BY_HAND)
    assert good.returncode == 0, good.stderr
    assert place.row(good.stdout)["state"] == "SUCCESS"
    assert place.row(good.stdout)["triggered_by"].startswith("t_staff_")
    bad = place.run("staff", "enqueue", "nap", "--wait", "--params", '{"fail": true}', *BY_HAND)
    assert bad.returncode == 1
    assert "FAILED" in bad.stderr
    assert "woken too early" in bad.stderr


@pytest.mark.usefixtures("worker")
def test_a_running_run_is_told_to_stop(place: Place) -> None:
    """Acknowledged by the worker, and over soon; who waited for it hears of it and exits 1."""
    with ended(place.start("staff", "enqueue", "nap", "--params", '{"seconds": 60}', "--wait", *BY_HAND)) as waiting:
        wait_until(lambda: place.newest() and place.row(place.newest())["progress"], WAIT, "the run to get on")
        run = place.newest()
        cancelled = place.run("staff", "cancel", str(run), *BY_HAND)
        assert "asked to stop" in cancelled.stdout, cancelled.stderr
        wait_until(lambda: place.row(run)["state"] == "CANCELLED", WAIT, "the run to end")
        row = place.row(run)
        assert row["cancel_requested"] <= row["cancel_acknowledged"] <= row["finished"]
        assert row["cancel_requested_by"].startswith("t_staff_")
        assert waiting.wait(WAIT) == 1


@pytest.mark.usefixtures("worker")
def test_ctrl_c_while_waiting_leaves_the_run_alone(place: Place) -> None:
    """It says so, and how to stop it."""
    with ended(place.start("staff", "enqueue", "nap", "--params", '{"seconds": 3}', "--wait", *BY_HAND)) as waiting:
        wait_until(lambda: place.newest() and place.row(place.newest())["progress"], WAIT, "the run to get on")
        waiting.send_signal(signal.SIGINT)
        said = waiting.communicate(timeout=WAIT)[0]
    assert waiting.returncode == 130
    assert "goes on; `opsctl jobs cancel" in said
    wait_until(lambda: place.row(place.newest())["state"] == "SUCCESS", WAIT, "the run to end")


def test_exec_is_a_run_like_any(place: Place) -> None:
    """Recorded with its attempt and its outcome, nobody else needed; a failure is exit 1 and in the audit."""
    dry = place.run("both", "exec", "nap", "--dry-run")
    assert (dry.returncode, "sleep 0.2 s" in dry.stderr, "nothing was changed" in dry.stderr) == (0, True, True)
    assert place.owner.execute("SELECT FROM ops.job_runs").rowcount == 0
    good = place.run("both", "exec", "nap", *BY_HAND)
    assert good.returncode == 0, good.stderr
    assert "sleep 0.2 s" in good.stderr
    assert 'SUCCESS: {"steps": 4}' in good.stdout
    row = place.row(place.newest())
    assert (row["state"], row["attempt"], row["result"], row["slot"]) == ("SUCCESS", 1, {"steps": 4}, None)
    assert row["triggered_by"].startswith("t_both_")
    bad = place.run("both", "exec", "nap", "--params", '{"fail": true}', *BY_HAND)
    assert bad.returncode == 1
    assert "ended FAILED: woken too early" in bad.stderr
    assert place.row(place.newest())["state"] == "FAILED"
    audit = place.owner.execute("SELECT action, outcome FROM ops.audit_events ORDER BY seq").fetchall()
    assert [event["outcome"] for event in audit] == ["intent", "allowed", "intent", "failed"]
    refused = place.run("staff", "exec", "nap", *BY_HAND)
    assert refused.returncode == 3
    assert "ops_jobs" in refused.stderr
    event = place.owner.execute("SELECT * FROM ops.audit_events ORDER BY seq DESC LIMIT 1").fetchone()
    assert event is not None
    assert (event["outcome"], event["target"], "ops_jobs" in event["error"]) == ("refused", "nap", True)
    dry = place.run("staff", "exec", "nap", "--dry-run")
    assert dry.returncode == 3
    assert place.owner.execute("SELECT FROM ops.audit_events WHERE outcome = 'refused'").rowcount == 1, "only looked"


def test_an_operator_reads_everything_and_no_parameter(place: Place) -> None:
    """Each reading command works as ops_staff; the column that may hold a secret is nobody's but the worker's."""
    engine = Engine(place.owner)
    engine.declare("nap")
    run = str(engine.ran("nap"))
    for words in (("list",), ("show", "nap"), ("active",), ("history",), ("run-details", run), ("stats",)):
        told = place.run("staff", *words, "--json")
        assert told.returncode == 0, told.stderr
        json.loads(told.stdout)
    with psycopg.connect(place.dsn["staff"]) as staff, pytest.raises(psycopg.errors.InsufficientPrivilege):
        staff.execute("SELECT params FROM ops.job_runs")


@pytest.mark.parametrize("how", ["key", "cancel"])
def test_exec_is_cancelled(place: Place, how: str) -> None:
    """By Ctrl-C at its terminal or by `cancel` from another: CANCELLED, and the process is gone."""
    with ended(place.start("both", "exec", "nap", "--params", '{"seconds": 60}', *BY_HAND)) as running:
        wait_until(lambda: place.newest() and place.row(place.newest())["progress"], WAIT, "the run to get on")
        run = place.newest()
        if how == "key":
            os.killpg(running.pid, signal.SIGINT)  # as a terminal does: the whole foreground group
        else:
            assert place.run("staff", "cancel", str(run), *BY_HAND).returncode == 0
        wait_until(lambda: place.row(run)["state"] == "CANCELLED", WAIT, "the run to be cancelled")
        row = place.row(run)
        assert row["cancel_requested"] <= row["cancel_acknowledged"] <= row["finished"]
        assert running.wait(WAIT) == 1
        assert row["cancel_requested_by"].startswith("t_both_" if how == "key" else "t_staff_")


def test_exec_shows_how_far_it_is_on_a_terminal(place: Place) -> None:
    """A line that moves; without a terminal none."""
    ours, theirs = pty.openpty()
    text = ""
    with ended(place.start("both", "exec", "nap", "--params", '{"seconds": 3}', *BY_HAND, stderr=theirs)) as running:
        os.close(theirs)
        with contextlib.suppress(OSError):  # Linux: EIO once the other side has gone
            while chunk := os.read(ours, 4096):
                text += chunk.decode()
        os.close(ours)
        assert running.wait(WAIT) == 0
    assert "of 60 steps, zzz" in text


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def test_watch_tells_each_thing_once_and_survives_its_line(place: Place, tmp_path: Path) -> None:
    """Queued, started, progress, completed; the line cut, it is back and tells what it missed."""
    engine = Engine(place.owner)
    engine.declare("nap")
    before = engine.enqueue("nap")
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("w") as told, err.open("w") as said:
        watching = place.start("staff", "watch", "--json", stdout=told, stderr=said)
    with ended(watching):

        def events(run: int) -> list[str]:
            return [line["event"] for line in _lines(out) if line["id"] == run]

        wait_until(lambda: events(before), WAIT, "the run that waits")
        attempt = engine.take()
        wait_until(lambda: events(before) == ["queued", "started"], WAIT, "the start")
        engine.progress(attempt, done=1, total=2)
        wait_until(lambda: events(before)[-1] == "progress", WAIT, "the progress")
        bystander = engine.enqueue("nap")
        runs.cancel(place.owner, bystander, "anna")
        wait_until(lambda: events(bystander)[-1:] == ["completed"], WAIT, "another run's end")
        engine.finish(attempt)
        wait_until(lambda: events(before)[-1] == "completed", WAIT, "the end")

        cut = place.owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'opsctl jobs watch'"
        )
        assert cut.rowcount >= 1
        missed = engine.ran("nap")
        wait_until(lambda: events(missed) == ["completed"], WAIT, "what was missed")
        after = engine.enqueue("nap")
        wait_until(lambda: events(after) == ["queued"], WAIT, "the line to be back")
        engine.finish(engine.take(), "FAILED", "no")
        wait_until(lambda: events(after)[-1] == "completed", WAIT, "the failure")
        assert _lines(out)[-1]["state"] == "FAILED"
        watching.send_signal(signal.SIGINT)
        assert watching.wait(WAIT) == 0
    assert [line["event"] for line in _lines(out) if line["id"] == before] == [
        *("queued", "started", "progress", "completed")
    ]
    assert "trying again" in err.read_text()
    assert "the database is back" in err.read_text()


@pytest.mark.parametrize("how", ["enqueue", "exec"])
def test_a_restarted_postgres_is_waited_out(own_postgres: PostgresServer, how: str) -> None:
    """The run goes on, is told to stop afterwards, and who waited for it hears how it ended."""
    with own_postgres.connect() as admin:
        admin.execute("CREATE DATABASE place")
    dsn = own_postgres.dsn("place")
    migrate.up(dsn)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(_place(dsn))
        if how == "enqueue":
            stack.enter_context(_worker(first))
        waits = ("--wait",) if how == "enqueue" else ()
        arguments = (how, "nap", "--params", '{"seconds": 60}', *waits, *BY_HAND)
        waiting = stack.enter_context(ended(first.start("both", *arguments)))
        wait_until(lambda: first.newest() and first.row(first.newest())["progress"], WAIT, "the run to get on")
        own_postgres.restart()
        with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as owner:
            now = Place(owner, first.dsn)
            run = now.newest()
            before = now.row(run)["progress"]
            wait_until(lambda: now.row(run)["progress"] != before, WAIT, "the run to get on again")
            assert now.run("staff", "cancel", str(run), *BY_HAND).returncode == 0
            wait_until(lambda: now.row(run)["state"] == "CANCELLED", WAIT, "the run to end")
            row = now.row(run)
            assert row["cancel_requested"] <= row["cancel_acknowledged"] <= row["finished"]
            assert row["attempt"] == 1
            assert waiting.wait(WAIT) == 1


@contextlib.contextmanager
def _frozen_line(owner: psycopg.Connection[dict[str, Any]]) -> Iterator[None]:
    """The server's process behind the line that listens stands still, as behind a network that swallows everything."""
    row = owner.execute("SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN %' OR query = 'SELECT 1'").fetchone()
    assert row is not None
    os.kill(row["pid"], signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(row["pid"], signal.SIGCONT)


def test_watch_outlives_a_server_that_hangs(own_postgres: PostgresServer, tmp_path: Path) -> None:
    """Frozen, it answers nobody and closes nothing: the watch says so, and is back after the thaw."""
    with own_postgres.connect() as admin:
        admin.execute("CREATE DATABASE place")
    dsn = own_postgres.dsn("place")
    migrate.up(dsn)
    out, err = tmp_path / "out", tmp_path / "err"
    with _place(dsn) as place, out.open("w") as told, err.open("w") as said:
        engine = Engine(place.owner)
        engine.declare("nap")
        first = engine.enqueue("nap")
        with ended(place.start("staff", "watch", "--json", stdout=told, stderr=said)) as watching:
            wait_until(lambda: _lines(out), WAIT, "the run that waits")
            with own_postgres.paused():
                wait_until(lambda: "trying again" in err.read_text(), WAIT, "the watch to notice")
            engine.finish(engine.take())
            wait_until(lambda: _lines(out)[-1]["event"] == "completed", WAIT, "what was missed")
            events = [(line["id"], line["event"]) for line in _lines(out)]
            assert events == [(first, "queued"), (first, "started"), (first, "completed")]
            with _frozen_line(place.owner):
                wait_until(lambda: err.read_text().count("is back") == 2, WAIT, "a new line instead of the frozen one")
                second = engine.enqueue("nap")
                wait_until(lambda: _lines(out)[-1]["id"] == second, WAIT, "a word on the new line")
            watching.send_signal(signal.SIGINT)
            assert watching.wait(WAIT) == 0
