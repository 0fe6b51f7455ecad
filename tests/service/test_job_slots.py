"""Each slot is decided once, whoever asks: the scheduler against a real database, with APScheduler as mere tick."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from psycopg.types.json import Jsonb

from opslib.errors import SourceError
from opslib.jobs.report import Report
from opslib.jobs.scheduler import Scheduler
from opslib.jobs.store import Store
from opslib.jobs.timing import Timing
from opslib.postgres import Database
from opslib.runner import _declared
from opslib.spec import CatchUp, Every, Job

HOURLY = {policy: Job(f"hourly-{policy}", "Hourly", Every(3600), timeout=60, catch_up=policy) for policy in CatchUp}
JOBS = {job.name: job for job in HOURLY.values()}


@pytest.fixture
def owner(database: str) -> Iterator[psycopg.Connection]:
    """The owner's connection."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    """Our calls."""
    opened = Database(database, application_name="test")
    await opened.open()
    yield Store(opened)
    await opened.close()


def scheduler(store: Store, jobs: dict[str, Job] = JOBS) -> tuple[Scheduler, Report]:
    """One of many."""
    report = Report(jobs, store, "test")
    return Scheduler(jobs, store, report, Timing(sweep=0.2)), report


async def declare(store: Store, *jobs: Job, complete: bool = True) -> None:
    """As a process does when it starts."""
    await store.declare([_declared(job, []) for job in jobs], "me", complete=complete)


def slots(owner: psycopg.Connection, job: Job) -> list[tuple[datetime, bool]]:
    """Its slots, each with whether it has a run."""
    sql = "SELECT slot, run IS NOT NULL FROM ops.job_slots WHERE job = %s ORDER BY slot"
    return owner.execute(sql, (job.name,)).fetchall()


def away(owner: psycopg.Connection, hours: float) -> None:
    """Nobody scheduled for so long."""
    owner.execute("UPDATE ops.jobs SET slots_from = now() - make_interval(mins => %s)", (round(hours * 60),))


async def test_catch_up(store: Store, owner: psycopg.Connection) -> None:
    """After three hours of nobody: all run, the latest runs, or none; what is left out is recorded; twice is once."""
    await declare(store, *JOBS.values())
    now = datetime.now(UTC)
    away(owner, 3)
    for _ in range(2):
        await scheduler(store)[0].look(JOBS)
        for policy, ran in (
            (CatchUp.ALL, [True, True, True]),
            (CatchUp.LATEST, [False, False, True]),
        ):
            found = slots(owner, HOURLY[policy])
            assert [run for _, run in found][-3:] == ran
            assert found[-1][0] == now.replace(minute=0, second=0, microsecond=0)
        assert len(slots(owner, HOURLY[CatchUp.NONE])) in (3, 4)
        assert not any(run for slot, run in slots(owner, HOURLY[CatchUp.NONE]) if now - slot > timedelta(minutes=1))
    skipped = dict(owner.execute("SELECT job, count FROM ops.job_counts WHERE event = 'slot_skipped'").fetchall())
    assert skipped["hourly-latest"] == 2
    assert skipped["hourly-none"] >= 2
    runs = owner.execute("SELECT count(*), count(DISTINCT slot) FROM ops.job_runs WHERE job = 'hourly-all'").fetchone()
    assert runs == (3, 3)


async def test_first_seen_catches_nothing_up(store: Store, owner: psycopg.Connection) -> None:
    """A job that is new, back, newly scheduled or newly set up has no past."""
    job = HOURLY[CatchUp.ALL]
    await declare(store, job)
    await scheduler(store)[0].look(JOBS)
    assert slots(owner, job) == []
    away(owner, 3)
    await declare(store)  # retired
    await scheduler(store)[0].look(JOBS)
    assert slots(owner, job) == []
    await declare(store, job)
    await scheduler(store)[0].look(JOBS)
    assert slots(owner, job) == []
    away(owner, 3)
    await declare(store, Job(job.name, "Hourly", Every(1800), timeout=60))
    assert (await store.last_slots())[job.name][0] > datetime.now(UTC) - timedelta(minutes=1)


async def test_a_declared_job_keeps_its_past(store: Store, owner: psycopg.Connection) -> None:
    """Starting again, with the same schedule, still catches up."""
    job = HOURLY[CatchUp.ALL]
    await declare(store, job)
    away(owner, 3)
    await declare(store, job)
    await scheduler(store)[0].look(JOBS)
    assert len(slots(owner, job)) == 3


async def test_many_schedulers_one_slot(store: Store, owner: psycopg.Connection) -> None:
    """Eight at the same moment make three runs, not twenty-four."""
    job = HOURLY[CatchUp.ALL]
    await declare(store, job)
    away(owner, 3)
    await asyncio.gather(*(scheduler(store)[0].look([job.name]) for _ in range(8)))
    assert len(slots(owner, job)) == 3
    assert owner.execute("SELECT count(*) FROM ops.job_runs").fetchone() == (3,)
    assert owner.execute("SELECT count(*) FROM ops.procrastinate_jobs").fetchone() == (3,)
    assert owner.execute("SELECT sum(count) FROM ops.job_counts").fetchone() == (None,)


async def test_late_slots_never_run(store: Store, owner: psycopg.Connection) -> None:
    """A slot before the last one decided is over, with or without its row; it is counted."""
    job = HOURLY[CatchUp.ALL]
    await declare(store, job)
    away(owner, 3)
    await scheduler(store)[0].look([job.name])
    found = [slot for slot, _ in slots(owner, job)]
    assert await store.decide(job.name, found, [False] * 3) == 0
    assert await store.decide(job.name, [found[0] - timedelta(hours=1)], [False]) == 0
    owner.execute("UPDATE ops.job_runs SET outcome = 'SUCCESS', finished_at = now()")
    assert await store.prune(datetime.now(UTC) + timedelta(seconds=1), 100) == 3
    assert slots(owner, job) == []
    assert await store.decide(job.name, found, [False] * 3) == 0
    assert owner.execute("SELECT count(*) FROM ops.job_runs").fetchone() == (0,)
    counts = owner.execute("SELECT event, count FROM ops.job_counts").fetchall()
    assert counts == [("slot_late", 4)]


async def test_a_slot_and_its_run_are_one(store: Store, owner: psycopg.Connection) -> None:
    """When the delivery cannot be made, there is no slot either."""
    job = HOURLY[CatchUp.ALL]
    await declare(store, job)
    away(owner, 3)
    owner.execute("ALTER TABLE ops.procrastinate_jobs ADD CONSTRAINT full_disk CHECK (false) NOT VALID")
    with pytest.raises(SourceError, match="full_disk"):
        await scheduler(store)[0].look([job.name])
    assert slots(owner, job) == []
    assert owner.execute("SELECT count(*) FROM ops.job_runs").fetchone() == (0,)
    owner.execute("ALTER TABLE ops.procrastinate_jobs DROP CONSTRAINT full_disk")
    await scheduler(store)[0].look([job.name])
    assert len(slots(owner, job)) == 3


async def test_ticks(store: Store, owner: psycopg.Connection) -> None:
    """A job due each second has a run for each, by APScheduler's tick and not the sweep's."""
    job = Job("each-second", "Each second", Every(1), timeout=1, catch_up=CatchUp.ALL)
    await declare(store, job)
    report = Report({job.name: job}, store, "test")
    ticking = asyncio.create_task(Scheduler({job.name: job}, store, report, Timing(sweep=100)).run())
    async with asyncio.timeout(60):
        while len(slots(owner, job)) < 3:  # noqa: ASYNC110 - a database is asked
            await asyncio.sleep(0.1)
    ticking.cancel()
    await asyncio.wait([ticking])
    found = [slot for slot, _ in slots(owner, job)]
    assert [b - a for a, b in itertools.pairwise(found)] == [timedelta(seconds=1)] * (len(found) - 1)


async def test_what_apscheduler_drops_is_counted(store: Store, owner: psycopg.Connection) -> None:
    """MISSED, ERROR and MAX_INSTANCES each add to a counter in the database, where an exporter reads it."""
    await declare(store, *JOBS.values())
    ticks, report = scheduler(store)
    for code in (EVENT_JOB_MISSED, EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_ERROR):
        ticks._ticks._dispatch_event(_event(code))
    for _ in range(2):
        await report.flush()
        counts = dict(owner.execute("SELECT event, count FROM ops.job_counts").fetchall())
        assert counts == {"tick_missed": 1, "tick_error": 2, "tick_max_instances": 1}


def _event(code: int) -> Any:
    from apscheduler.events import JobEvent  # noqa: PLC0415 - beside its only use

    return JobEvent(code, "hourly-all", "default")


async def test_only_known_events_are_counted(store: Store) -> None:
    """A worker's login cannot invent counters."""
    with pytest.raises(SourceError, match="not counted here"):
        await store.count("hourly-all", "result_refused", 1)


def test_declaring_is_no_ones_but_jobs(owner: psycopg.Connection) -> None:
    """Staff may queue and cancel; what is declared and when it is due is not theirs to say."""
    rights = owner.execute(
        "SELECT has_function_privilege('ops_staff', 'ops.job_declare(jsonb, text, boolean)', 'EXECUTE'), "
        "has_function_privilege('ops_staff', 'ops.job_cancel(bigint, text)', 'EXECUTE')"
    ).fetchone()
    assert rights == (False, True)
    owner.execute("SELECT ops.job_declare(%s, 'me', true)", (Jsonb([]),))


async def test_who_runs_one_by_hand_declares_nothing_anew(store: Store, owner: psycopg.Connection) -> None:
    """An operator's host has other settings: what a node declared stands, and no slot is lost; a new one is written."""
    job = HOURLY[CatchUp.ALL]
    await store.declare([_declared(job, ["R2_BUCKET"])], "a node", complete=True)
    owner.execute("UPDATE ops.jobs SET slots_from = clock_timestamp() - interval '3 hours'")
    what = "SELECT job, missing, declared_by, slots_from FROM ops.jobs ORDER BY job"
    before = owner.execute(what).fetchall()
    for _ in range(2):
        await store.declare([_declared(job, [])], "an operator", complete=False)
        assert owner.execute(what).fetchall() == before
    await store.declare([_declared(HOURLY[CatchUp.NONE], [])], "an operator", complete=False)
    assert [row[2] for row in owner.execute(what)] == ["a node", "an operator"]
    owner.execute("UPDATE ops.jobs SET retired_at = clock_timestamp()")
    await store.declare([_declared(job, [])], "an operator", complete=False)
    assert owner.execute("SELECT job FROM ops.jobs WHERE retired_at IS NULL").fetchall() == [(job.name,)]
