"""`opsctl exporter checkpoints`: what exporters remember, for people and for programs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from click.testing import CliRunner

from demo.processes import wait_until
from opsctl.commands.exporter import exporter
from opslib.checkpoint import Checkpoint
from opslib.spec import Counter
from opslib.tally import Tally

JOBS = Counter("test_jobs_total", "Jobs.", ("queue",))
CUT = datetime(2026, 1, 1, 12, tzinfo=UTC)


def run(*arguments: str, code: int = 0) -> str:
    """What the command prints."""
    ended = CliRunner().invoke(exporter, ["checkpoints", *arguments])
    assert ended.exit_code == code, ended.output
    return ended.stdout


async def test_shows_who_holds_what_and_how_far_the_ledger_is(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running or not, series, age; a family before, during and after its back-fill. Always in UTC."""
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("COLUMNS", "200")
    assert "no exporter has saved" in run()
    assert json.loads(run("--json")) == {"exporters": [], "families": []}
    tally = Tally((JOBS,), durable_only=True)
    checkpoint = Checkpoint("queues/default", database, tally)
    await checkpoint.load()
    for queue in "ab":
        tally.add(JOBS, queue)
    await checkpoint.save()
    with psycopg.connect(database, autocommit=True) as ops:
        for family in ("new", "underway", "webhook"):
            ops.execute("SELECT ops.ledger_start(%s, %s)", (family, CUT))
        for family, until, done in (("underway", CUT - timedelta(days=1), False), ("webhook", CUT, True)):
            ops.execute(
                "SELECT ops.ledger_backfill(%s, '-infinity', %s, %s, '{s}', '{ok}', '{7}', '{0}')",
                (family, until, done),
            )
        ops.execute("SELECT ops.ledger_advance('webhook', '{1}', '{s}', '{ok}', ARRAY[%s::timestamptz], '{0}')", (CUT,))
        ops.execute(
            "SELECT ops.ledger_advance('webhook', '{1}', '{s}', '{error}', ARRAY[%s::timestamptz], '{0}')", (CUT,)
        )
    told = json.loads(run("--json"))
    (held,) = told["exporters"]
    assert (held["exporter"], held["epoch"], held["series"], held["held"]) == ("queues/default", 1, 2, True)
    assert 0 <= held["age_seconds"] < 60
    counted = {row["family"]: (row["seen"], row["events"], row["reclassified"]) for row in told["families"]}
    assert counted == {"new": (0, 0, 0), "underway": (0, 7, 0), "webhook": (1, 8, 1)}
    assert {row["family"]: row["backfill_from"] for row in told["families"]} == {
        "new": None,
        "underway": "2025-12-31T12:00:00+00:00",
        "webhook": "2026-01-01T12:00:00+00:00",
    }
    shown = run()
    assert "not begun" in shown
    assert "up to 2025-12-31 12:00:00" in shown
    assert f"done {datetime.now(UTC):%Y-%m-%d}" in shown
    await checkpoint.close()
    wait_until(lambda: not json.loads(run("--json"))["exporters"][0]["held"], 60, "the server to see the lock let go")


def test_an_ops_schema_that_is_missing_is_named(app_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that makes it."""
    monkeypatch.setenv("DATABASE_URL", app_database)
    ended = CliRunner().invoke(exporter, ["checkpoints"])
    assert "opsctl migrate up" in str(ended.exception)
