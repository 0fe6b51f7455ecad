"""A page of the history over a million runs, by every combination of filters the command line offers.

Asked are values that are common, rare, and not there at all: a job that never failed, a person who never ran it, a page
from the middle. Which combination is slowest is part of the result.
"""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from demo import postgres
from demo.processes import private_directory
from opslib.areas import history, runs
from opslib.areas.history import PAGE, Filter
from opslib.areas.queries import NAMED
from opslib.areas.runs import State
from opslib.contract import migrate
from tests.bench.line import Line

RUNS, JOBS, OPEN, SPACING = 1_000_000, 20, 60, timedelta(seconds=30)
DRAWS = 120
TARGET_MS = 50.0

DECLARE = """
SELECT ops.job_declare(jsonb_agg(jsonb_build_object(
    'job', 'job-' || n, 'title', 'a job', 'queue', 'default', 'schedule', 'every 600', 'timeout_seconds', 60,
    'max_age_seconds', 90000, 'retries', 0, 'retry_seconds', 2, 'catch_up', 'latest', 'missing', '{}'::text[])),
    'bench', true)
FROM generate_series(0, %s - 1) n
"""
RAN = """
INSERT INTO ops.job_runs (job, slot, queue, priority, timeout_seconds, retries, retry_seconds, foreground, params,
                          params_shown, triggered_by, queued_at, due_at, attempt, attempts, started_at, finished_at,
                          outcome, result, error)
SELECT 'job-' || n %% 20, CASE WHEN person IS NULL THEN at END, 'default', 0, 60, 0, 2, false, '{}', '{}',
       coalesce(person, 'schedule'), at, at, n, 1, at + interval '5 ms', at + interval '3 s', outcome,
       CASE outcome WHEN 'SUCCESS' THEN '{"deleted": 12, "kept": 30}'::jsonb END,
       CASE outcome WHEN 'FAILED' THEN 'the provider did not answer within 15 s' END
FROM generate_series(1, %(runs)s) n,
     LATERAL (SELECT now() - (%(runs)s - n + %(open)s) * %(spacing)s AS at,
                     -- Two of a hundred were asked for by a person; nobody ever asked for an odd job.
                     CASE WHEN n %% 50 = 0 THEN (ARRAY['anna', 'ben', 'carl'])[1 + (n / 50) %% 3] END AS person,
                     -- Job 7 never failed.
                     CASE WHEN n %% 20 = 7 THEN 'SUCCESS' WHEN n %% 25 = 1 THEN 'FAILED'
                          WHEN n %% 100 = 2 THEN 'CANCELLED' ELSE 'SUCCESS' END AS outcome) made
"""
ATTEMPTED = """
INSERT INTO ops.job_attempts (run, number, worker, node, silent_after, started_at, heartbeat_at, finished_at, outcome)
SELECT id, 1, 1, 'node-1:4711', '5 minutes', started_at, finished_at, finished_at, outcome FROM ops.job_runs ORDER BY id
"""
VALUES: Mapping[str, tuple[Any, ...]] = {
    "job": ("job-1", "job-7", "job-0", "no-such-job"),
    "state": tuple(State),
    "by": ("schedule", "anna", "nobody"),
    "since": (timedelta(hours=1), timedelta(days=30), timedelta(days=300)),
    "until": (timedelta(minutes=1), timedelta(days=100), timedelta(days=346)),
    "before": (0.999, 0.5, 0.01),
}
OPTIONS = {"since": "from", "until": "to", "before": "after"}
"""What the command line calls them."""


def run() -> Iterator[Line]:
    """A million runs on a server of our own."""
    with private_directory() as directory, postgres.postgres(directory) as server:
        with server.connect() as admin:
            admin.execute("CREATE DATABASE history")
        dsn = server.dsn("history")
        migrate.up(dsn)
        with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
            _seed(connection)
            yield from _measure(connection)


def _seed(connection: psycopg.Connection[Any]) -> None:
    connection.execute(DECLARE, (JOBS,))
    connection.execute(RAN, {"runs": RUNS, "open": OPEN, "spacing": SPACING})
    connection.execute(ATTEMPTED)
    worker = connection.execute("SELECT ops.job_worker_start('bench', '{}', false) AS worker").fetchone()
    assert worker
    for number in range(OPEN):
        runs.enqueue(connection, f"job-{number % JOBS}", triggered_by="ben" if number % 10 == 0 else "schedule")
    for silent_after in ("5 minutes",) * 20 + ("0",) * 5:
        connection.execute(
            "SELECT FROM ops.job_take(%s, ARRAY['default'], %s::interval)", (worker["worker"], silent_after)
        )
    connection.execute("VACUUM (ANALYZE) ops.job_runs, ops.job_attempts")


def _measure(connection: psycopg.Connection[Any]) -> Iterator[Line]:
    chance = random.Random(1)
    by_combination: dict[tuple[str, ...], list[float]] = {}
    for count in range(len(VALUES) + 1):
        for names in itertools.combinations(VALUES, count):
            times = [_page(connection, _draw(names, chance)) for _ in range(DRAWS)]
            by_combination[names] = times[DRAWS // 6 :]  # the first ones warm up
    everything = [time for times in by_combination.values() for time in times]
    yield Line("newest page of 1 M runs, no filter, p99", _p99(by_combination[()]), "target", TARGET_MS, 1)
    for name in VALUES:
        yield Line(f"the same, --{OPTIONS.get(name, name)}, p99", _p99(by_combination[name,]), "target", TARGET_MS, 1)
    yield Line(f"all {len(by_combination)} combinations of filters, p99", _p99(everything), "target", TARGET_MS, 1)
    worst = max(by_combination, key=lambda names: _p99(by_combination[names]))
    flags = " ".join(f"--{OPTIONS.get(name, name)}" for name in worst)
    yield Line(f"the slowest of them ({flags}), p99", _p99(by_combination[worst]), "target", TARGET_MS, 1)
    yield Line("the slowest page of all", max(everything), "target", TARGET_MS, 1)
    yield Line("jobs active", _median(lambda: runs.active(connection)), "target", TARGET_MS, 1)
    yield Line("what the exporter reads every 5 s", _median(lambda: _exporter(connection)), "target", TARGET_MS, 1)
    yield Line("jobs stats, read anew", _median(lambda: history.stats(connection)), "target", 5_000, 1)


def _draw(names: tuple[str, ...], chance: random.Random) -> Filter:
    given: dict[str, Any] = {name: chance.choice(VALUES[name]) for name in names}
    for name in ("since", "until"):
        if name in given:
            given[name] = datetime.now(UTC) - given[name]
    if "before" in given:
        given["before"] = round(given["before"] * RUNS)
    return Filter(**given)


def _page(connection: psycopg.Connection[Any], wanted: Filter) -> float:
    started = time.perf_counter()
    history.page(connection, wanted, PAGE)
    return (time.perf_counter() - started) * 1000


def _exporter(connection: psycopg.Connection[Any]) -> None:
    for name in ("job_gauges", "job_totals", "job_counts"):
        connection.execute(NAMED[name].sql).fetchall()


def _median(call: Any) -> float:
    times = []
    for _ in range(7):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[1:])


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]
