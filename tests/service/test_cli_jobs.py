"""`opsctl jobs`: what is declared, what ran, and queueing it; what needs a worker is in `test_cli_jobs_live`."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.rows import dict_row

from opsctl import catalog
from opsctl.commands.jobs import jobs
from opslib.errors import ConfigError, NotFoundError, RefusedError
from tests.service.cli_catalog import JOBS
from tests.service.run_kit import Engine

BY_HAND = ("--reason", "a test", "--yes")


@pytest.fixture
def engine(database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Engine]:
    """The engine; the command line has one job, this database and an empty memory."""
    monkeypatch.setattr(catalog, "JOBS", JOBS)
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with psycopg.connect(database, autocommit=True, row_factory=dict_row) as connection:
        yield Engine(connection)


def opsctl(*arguments: str, code: int = 0) -> str:
    """What `opsctl jobs …` prints."""
    ended = CliRunner().invoke(jobs, arguments)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert ended.exit_code == code, ended.output
    return ended.stdout


def told(*arguments: str) -> Any:
    """The same as a program reads it."""
    return json.loads(opsctl(*arguments, "--json"))


def test_list_tells_how_each_job_stands(engine: Engine) -> None:
    """Fine, overdue, lacking a setting, and in our catalog but declared by nobody."""
    engine.declare("backup")
    (first, second) = told("list")
    assert (first["job"], first["state"], first["last_outcome"]) == ("backup", "ok", None)
    assert (second["job"], second["state"]) == ("nap", "not declared")
    engine.ran("backup", "FAILED")
    engine.connection.execute("UPDATE ops.jobs SET first_declared_at = first_declared_at - interval '2 days'")
    engine.enqueue("backup")
    (first, _) = told("list")
    assert (first["state"], first["last_outcome"], first["queued"], first["running"]) == ("overdue", "FAILED", 1, 0)
    engine.declare("backup", schedule="every 300", missing=["R2_BUCKET"])
    assert "lacks R2_BUCKET" in opsctl("list")
    assert "every 5 min" in opsctl("list")
    assert told("list")[0]["schedule"] == "every 300"


def test_show_explains_a_job(engine: Engine) -> None:
    """Parameters with types and defaults, and its last runs; a job that is not, is named."""
    assert told("show", "nap")["state"].startswith("not declared")
    engine.declare("nap", schedule=None)
    run = engine.ran("nap")
    shown = told("show", "nap")
    assert shown["schedule"] == "on demand"
    assert shown["next"] is None
    assert shown["parameters"] == [
        {"name": "seconds", "type": "number", "default": 0.2, "meaning": "How long it takes."},
        {"name": "fail", "type": "boolean", "default": False, "meaning": ""},
        {"name": "targets", "type": "list of Target", "default": [], "meaning": "Where to copy."},
    ]
    assert [row["id"] for row in shown["runs"]] == [run]
    engine.connection.execute("UPDATE ops.job_runs SET started_at = started_at - interval '2 h 5 min'")
    for command in (("show", "nap"), ("run-details", str(run)), ("history",)):
        assert "2 h 5 min" in opsctl(*command)
    assert "How long it takes." in opsctl("show", "nap")
    with pytest.raises(NotFoundError, match="there are nap"):
        opsctl("show", "backup")


def test_wrong_parameters_queue_nothing(engine: Engine) -> None:
    """Every error with its place, and no value repeated."""
    engine.declare("nap")
    wrong = '{"seconds": -1, "fail": "perhaps-hunter2", "targets": [{"bucket": "a"}, {"token": "hunter2"}], "x": 1}'
    with pytest.raises(ConfigError) as caught:
        opsctl("enqueue", "nap", "--params", wrong, *BY_HAND)
    *lines, shape = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "--params seconds",
        "--params fail",
        "--params targets[1].bucket",
        "--params x",
    ]
    assert shape == "it takes a JSON object of seconds, fail, targets"
    assert "hunter2" not in str(caught.value)
    for broken in ("{", "[]", "7"):
        with pytest.raises(ConfigError, match="as a whole"):
            opsctl("enqueue", "nap", "--params", broken, *BY_HAND)
    assert told("active") == []


def test_enqueue_is_guarded_and_shows_no_secret(engine: Engine) -> None:
    """No reason or no yes: refused, nothing queued. The worker gets the secret, nobody else does."""
    engine.declare("nap", schedule=None)
    secret = '{"targets": [{"bucket": "copies", "token": "hunter2-hunter2"}]}'
    for lacking in ((), ("--reason", "a test")):
        with pytest.raises(RefusedError):
            opsctl("enqueue", "nap", "--params", secret, *lacking)
    assert told("active") == []
    assert opsctl("enqueue", "nap", "--params", secret, "--reason", "a test", "--dry-run") == ""
    assert told("active") == []
    run = opsctl("enqueue", "nap", "--params", secret, "--priority", "7", "--at", "2099-01-01", *BY_HAND).strip()
    (row,) = told("active")
    assert (str(row["id"]), row["priority"], row["due"]) == (run, 7, "2099-01-01T00:00:00Z")
    assert row["queue_delay"] == 0, "its time has not come"
    assert row["parameters"]["targets"] == [{"bucket": "copies", "token": "***"}]
    audit = engine.connection.execute("SELECT * FROM ops.audit_events").fetchall()
    assert [event["outcome"] for event in audit] == ["refused", "refused", "intent", "allowed"]
    everywhere = str(audit) + opsctl("active") + opsctl("run-details", run) + opsctl("history", "--json")
    assert "hunter2" not in everywhere
    held = engine.connection.execute("SELECT params FROM ops.job_runs").fetchone()
    assert held is not None
    assert held["params"]["targets"][0]["token"] == "hunter2-hunter2"


def test_enqueue_of_what_nobody_declared(engine: Engine) -> None:
    """It says what was not started."""
    del engine
    with pytest.raises(NotFoundError, match="jobs run"):
        opsctl("enqueue", "nap", *BY_HAND)


def test_enqueue_of_what_no_worker_has_the_settings_for(engine: Engine) -> None:
    """Refused with what is lacking and where, in the audit, too; queued once it is set."""
    engine.declare("nap", schedule=None, missing=["R2_BUCKET", "R2_ENDPOINT"])
    for _ in range(2):
        with pytest.raises(RefusedError, match="nap lacks R2_BUCKET, R2_ENDPOINT where jobs run"):
            opsctl("enqueue", "nap", *BY_HAND)
    assert told("active") == []
    refused = engine.connection.execute("SELECT outcome FROM ops.audit_events").fetchall()
    assert [event["outcome"] for event in refused] == ["refused", "refused"]
    engine.declare("nap", schedule=None)
    opsctl("enqueue", "nap", *BY_HAND)
    assert len(told("active")) == 1


def test_history_by_every_filter_and_page_by_page(engine: Engine) -> None:
    """Newest first; pages neither overlap nor leave out, though runs come in meanwhile."""
    engine.declare("backup", "nap")
    made = [
        engine.ran("backup" if n % 2 else "nap", "FAILED" if n % 3 == 0 else "SUCCESS", "anna" if n < 4 else "schedule")
        for n in range(12)
    ]
    assert [row["id"] for row in told("history")] == made[::-1]
    assert [row["id"] for row in told("history", "--job", "nap")] == made[::2][::-1]
    assert [row["id"] for row in told("history", "--state", "failed")] == made[::3][::-1]
    assert [row["id"] for row in told("history", "--by", "anna")] == made[:4][::-1]
    assert [row["id"] for row in told("history", "--job", "nap", "--state", "FAILED", "--by", "anna")] == [made[0]]
    assert len(told("history", "--from", "1h")) == 12
    assert told("history", "--to", "1h") == told("history", "--from", "2099-01-01") == []
    middle = engine.connection.execute("SELECT queued_at FROM ops.job_runs WHERE id = %s", (made[6],)).fetchone()
    assert middle is not None
    at = middle["queued_at"].isoformat()
    assert [row["id"] for row in told("history", "--from", at)] == made[6:][::-1]
    assert [row["id"] for row in told("history", "--to", at, "--state", "SUCCESS")] == [
        run for n, run in enumerate(made[:6]) if n % 3
    ][::-1]
    seen: list[int] = []
    after: list[str] = []
    for page in range(3):
        seen += [row["id"] for row in told("history", "--limit", "4", *after)]
        more = CliRunner().invoke(jobs, ["history", "--limit", "4", *after]).stderr.split()
        assert bool(more) == (page < 2), "the last page says that it is"
        after = more[1:]
        engine.ran("nap")
    assert seen == made[::-1]
    opsctl("history", "--limit", "101", code=2)


def test_history_of_open_runs_by_state(engine: Engine) -> None:
    """Told from the time: queued, running, and FAILED although nobody lived to write it down."""
    engine.declare("nap")
    silent, running, queued = (engine.enqueue("nap") for _ in range(3))
    engine.take(timedelta(0))
    engine.take()
    for state, run in (("FAILED", silent), ("RUNNING", running), ("QUEUED", queued)):
        assert [row["id"] for row in told("history", "--state", state)] == [run]
    assert "no heart-beat since" in told("run-details", str(silent))["error"]
    assert [row["id"] for row in told("active")] == [running, queued]


def test_history_for_a_spreadsheet(engine: Engine) -> None:
    """Every column, and an error that looks like a formula stays text."""
    engine.declare("nap")
    engine.enqueue("nap")
    engine.finish(engine.take(), "FAILED", "=HYPERLINK(1)")
    (row,) = csv.DictReader(io.StringIO(opsctl("history", "--csv")))
    assert (row["state"], row["error"], row["parameters"]) == ("FAILED", "'=HYPERLINK(1)", "{}")
    assert float(row["duration"]) >= 0
    assert "outcome" not in row


def test_details_show_every_attempt(engine: Engine) -> None:
    """Each with its node and how it ended; a run that is not, is exit 4."""
    engine.declare("nap", retries=1, retry_seconds=0)
    run = engine.enqueue("nap")
    engine.finish(engine.take(), "FAILED", "first")
    attempt = engine.take()
    engine.progress(attempt, done=1, total=2, unit="steps", note="zzz")
    shown = told("run-details", str(run))
    assert [(a["number"], a["outcome"], a["error"]) for a in shown["attempts"]] == [
        (1, "FAILED", "first"),
        (2, None, None),
    ]
    assert shown["progress"]["done"] == 1
    assert "50% of 2 steps, zzz" in opsctl("active")
    assert "50% of 2 steps, zzz" in opsctl("run-details", str(run))
    assert "Attempts" in opsctl("run-details", str(run))
    with pytest.raises(NotFoundError) as caught:
        opsctl("run-details", "999999")
    assert caught.value.exit_code == 4


def test_cancel_of_queued_and_of_ended_runs(engine: Engine) -> None:
    """At once, by whom it says; a second time nothing changes."""
    engine.declare("nap")
    run = engine.enqueue("nap")
    assert "is CANCELLED" in opsctl("cancel", str(run), *BY_HAND)
    row = told("run-details", str(run))
    assert (row["state"], row["cancel_requested_by"]) == ("CANCELLED", "postgres")
    assert "has ended: CANCELLED" in opsctl("cancel", str(run), *BY_HAND)
    assert told("run-details", str(run)) == row
    with pytest.raises(NotFoundError):
        opsctl("cancel", "999999", *BY_HAND)


def test_stats_are_figures_of_the_last_half_minute(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """By job and state, durations, success rate; asked again at once the same, later anew; without a memory as well."""
    engine.declare("nap", "backup")
    assert told("stats") == []
    for outcome in ("SUCCESS", "SUCCESS", "SUCCESS", "FAILED", "CANCELLED"):
        engine.ran("nap", outcome)
    assert told("stats") == [], "remembered"
    monkeypatch.setattr("opsctl.commands.jobs_stats.CACHED_SECONDS", 0)
    engine.connection.execute("UPDATE ops.job_runs SET started_at = finished_at - interval '1 second' * (id % 4)")
    (row,) = told("stats")
    counts = ("queued", "running", "success", "failed", "cancelled", "success_rate")
    assert [row[name] for name in counts] == [0, 0, 3, 1, 1, 0.75]
    assert row["longest_seconds"] == 3
    assert 0 < row["median_seconds"] <= row["p95_seconds"] <= 3
    monkeypatch.setattr("opsctl.commands.jobs_stats.CACHED_SECONDS", 30)
    assert told("stats") == [row]
    assert "75.0%" in opsctl("stats")
    for nowhere in ("/dev/null/nowhere", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", nowhere)
        monkeypatch.delenv("HOME", raising=False)
        assert told("stats") == [row]


@pytest.mark.parametrize("arguments", [["--help"], ["jobs", "--help"], ["jobs", "list", "--help"]])
def test_help_loads_no_job(arguments: list[str]) -> None:
    """Neither a job's module nor the engine."""
    script = (
        "import sys; from click.testing import CliRunner; from opsctl.cli import cli;"
        f"result = CliRunner().invoke(cli, {arguments!r}); assert result.exit_code == 0, result.output;"
        "print([m for m in sys.modules if m.startswith(('jobs', 'apscheduler', 'opslib.runner', 'opslib.jobs'))])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
