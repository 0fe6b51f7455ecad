"""Jobs on the page: overdue by one rule, counters that outlive the history, whatever state the workers are in."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from exporters.runs import DURATION, SUBJECT, Runs, collectors
from opslib import settings
from opslib.errors import SourceError
from tests.service.run_kit import Engine

Page = dict[tuple[str, ...], float]


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    """The engine on a database of its own."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield Engine(connection)


@pytest.fixture
async def collector(database: str) -> AsyncIterator[Runs]:
    """The exporter's collector, as a member of ops_exporter and nothing else."""
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS t_runs_exporter")
        admin.execute("CREATE ROLE t_runs_exporter LOGIN IN ROLE ops_exporter")
    (collector,) = collectors(settings.load({"OPS_DATABASE_URL": make_conninfo(database, user="t_runs_exporter")}))
    assert isinstance(collector, Runs)
    await collector.start()
    yield collector
    await collector.stop()


async def read(collector: Runs) -> Page:
    """What the page says now, histograms by their sum."""
    page: Page = {}
    for sample in (*await collector.collect(), *collector.counts()):
        assert not isinstance(sample, str)
        assert sample.metric in SUBJECT.metrics
        page[sample.metric.name.removeprefix("ops_job_"), *sample.labels] = sample.value[-1]
    return page


async def test_a_declared_job_that_never_ran_is_overdue_in_time(engine: Engine, collector: Runs) -> None:
    """Counted from its declaration, once max_age has passed; every counter is there from 0 on."""
    engine.declare("backup", max_age_seconds=3600)
    page = await read(collector)
    assert (page["overdue", "backup"], page["queued", "backup"], page["running", "backup"]) == (0, 0, 0)
    assert ("last_success_timestamp_seconds", "backup") not in page
    assert ("last_outcome", "backup", "FAILED") not in page
    assert page["runs_total", "backup", "FAILED"] == page["scheduler_events_total", "backup", "missed"] == 0
    engine.connection.execute("UPDATE ops.jobs SET first_declared_at = first_declared_at - interval '59 minutes'")
    assert (await read(collector))["overdue", "backup"] == 0
    engine.connection.execute("UPDATE ops.jobs SET first_declared_at = first_declared_at - interval '1 minute'")
    assert (await read(collector))["overdue", "backup"] == 1
    # Declared again by a restart: the clock is not reset.
    engine.declare("backup", max_age_seconds=3600)
    assert (await read(collector))["overdue", "backup"] == 1
    engine.ran("backup")
    page = await read(collector)
    assert page["overdue", "backup"] == 0
    assert page["last_success_timestamp_seconds", "backup"] == pytest.approx(time.time(), abs=20)


async def test_no_rule_speaks_of_what_cannot_be_overdue(engine: Engine, collector: Runs) -> None:
    """Without max_age, or without its settings, a job is not overdue; what it lacks is a number of its own."""
    engine.declare("on-demand", schedule=None, max_age_seconds=None)
    page = await read(collector)
    assert ("overdue", "on-demand") not in page
    assert page["missing_settings", "on-demand"] == 0
    engine.declare("backup", missing=["R2_BUCKET", "R2_ENDPOINT"], max_age_seconds=1)
    page = await read(collector)
    assert ("overdue", "backup") not in page
    assert page["missing_settings", "backup"] == 2
    assert [of for of in page if of[1] == "on-demand"] == [], "a retired job that never ran is gone"


async def test_a_run_through_its_life(engine: Engine, collector: Runs) -> None:
    """Queued, running, ended; the last outcome follows, one of three is 1."""
    engine.declare("backup")
    engine.enqueue("backup")
    engine.enqueue("backup")
    page = await read(collector)
    assert (page["queued", "backup"], page["running", "backup"]) == (2, 0)
    attempt = engine.take()
    page = await read(collector)
    assert (page["queued", "backup"], page["running", "backup"]) == (1, 1)
    engine.finish(attempt, "FAILED", "no")
    page = await read(collector)
    assert (page["queued", "backup"], page["running", "backup"]) == (1, 0)
    assert [page["last_outcome", "backup", o] for o in ("SUCCESS", "FAILED", "CANCELLED")] == [0, 1, 0]
    engine.finish(engine.take())
    page = await read(collector)
    assert [page["last_outcome", "backup", o] for o in ("SUCCESS", "FAILED", "CANCELLED")] == [1, 0, 0]
    assert [page["runs_total", "backup", o] for o in ("SUCCESS", "FAILED", "CANCELLED")] == [1, 1, 0]
    assert 0 < page["duration_seconds", "backup", "SUCCESS"] < 20


async def test_a_silent_run_has_failed_though_nobody_lives_to_say_so(engine: Engine, collector: Runs) -> None:
    """The last outcome is told from the time; its late result is refused and counted."""
    engine.declare("backup")
    engine.ran("backup")
    engine.enqueue("backup")
    attempt = engine.take(timedelta(0))
    page = await read(collector)
    assert (page["last_outcome", "backup", "FAILED"], page["running", "backup"]) == (1, 0)
    assert page["runs_total", "backup", "FAILED"] == 0, "counted once it is written down"
    assert engine.finish(attempt) is None
    page = await read(collector)
    assert page["results_refused_total", "backup"] == page["attempts_lost_total", "backup"] == 1
    assert (page["last_outcome", "backup", "FAILED"], page["runs_total", "backup", "FAILED"]) == (1, 1)


async def test_counters_outlive_the_history(engine: Engine, collector: Runs) -> None:
    """Runs pruned, slots skipped, ticks gone wrong, a job retired: no counter steps back."""
    engine.declare("backup", "cleanup")
    for _ in range(3):
        engine.ran("backup")
    now = "clock_timestamp()"
    engine.connection.execute(f"SELECT ops.job_decide('backup', ARRAY[{now}, {now} + '1 s'], ARRAY[true, true])")
    engine.connection.execute("SELECT ops.job_count('backup', 'tick_missed', 4)")
    before = await read(collector)
    assert before["slots_skipped_total", "backup"] == 2
    assert before["scheduler_events_total", "backup", "missed"] == 4
    engine.connection.execute("SELECT ops.job_prune(clock_timestamp() + interval '1 hour', 1000)")
    rows = engine.connection.execute("SELECT count(*) FROM ops.job_runs").fetchone()
    assert rows == (0,)
    assert await read(collector) == before
    engine.declare("cleanup")
    after = await read(collector)
    assert after["runs_total", "backup", "SUCCESS"] == 3
    assert ("overdue", "backup") not in after


async def test_the_buckets_are_the_databases(engine: Engine, collector: Runs) -> None:
    """Both sides know the same bounds, and a run above all of them lands above."""
    bounds = engine.connection.execute("SELECT ops.job_bounds()").fetchone()
    assert bounds == (list(DURATION.buckets),)
    engine.declare("backup")
    engine.enqueue("backup")
    attempt = engine.take()
    engine.connection.execute("UPDATE ops.job_runs SET started_at = started_at - interval '5 hours'")
    engine.finish(attempt)
    await collector.collect()
    (state,) = (
        sample.value
        for sample in collector.counts()
        if not isinstance(sample, str) and sample.metric is DURATION and sample.labels == ("backup", "SUCCESS")
    )
    assert state[:-1] == (0,) * len(DURATION.buckets) + (1,)
    assert state[-1] == pytest.approx(18_000, abs=20)
    engine.connection.execute("UPDATE ops.job_totals SET buckets = '{1}'")
    with pytest.raises(SourceError, match="migrate up"):
        await collector.collect()


async def test_counts_stay_while_the_database_is_away(engine: Engine, collector: Runs) -> None:
    """A count is true whatever became of its source."""
    engine.declare("backup")
    engine.ran("backup")
    await collector.collect()
    before = list(collector.counts())
    engine.connection.execute("REVOKE ALL ON ops.jobs FROM ops_exporter")
    with pytest.raises(SourceError):
        await collector.collect()
    assert list(collector.counts()) == before


def test_without_a_database_it_says_what_it_needs() -> None:
    """One of two settings."""
    assert SUBJECT.missing(settings.load({}).has) == ("OPS_DATABASE_URL or DATABASE_URL",)
