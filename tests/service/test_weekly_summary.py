"""The job `weekly-summary` beside real BullMQ workers in Node, 5.63.0 and the newest: once per user and week."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from redis import Redis

from jobs import weekly_summary
from jobs.weekly_summary import JOB, Result, Week
from opslib.errors import CancelledError, ConfigError, RefusedError, SourceError
from opslib.spec import NoParams
from tests.service.job_kit import a_run
from tests.service.queue_kit import VERSIONS, Bullmq, install

ROOT = Path(__file__).parents[2]
QUEUES = ["reports", "email"]
MONDAY = datetime(2026, 11, 23, 9, tzinfo=UTC)

Told = Callable[[], Awaitable[Any]]


@pytest.fixture(scope="session", params=VERSIONS)
def folder(request: pytest.FixtureRequest) -> Path:
    """Where that version of BullMQ is installed."""
    return install(request.param)


@pytest.fixture
def bullmq(folder: Path, redis: str) -> Bullmq:
    """BullMQ on an empty Redis."""
    return Bullmq(folder, redis)


def users(database: str, count: int, **columns: Any) -> list[str]:
    """New users who may be written to, unless said otherwise."""
    given = {"emailConfirmed": True, **columns}
    names, values = ", ".join(f'"{name}"' for name in given), ", ".join(["%s"] * len(given))
    with psycopg.connect(database) as owner:
        rows = owner.execute(
            f"""INSERT INTO users (email, {names}) SELECT gen_random_uuid() || '@mail.example', {values}
                FROM generate_series(1, {count}) RETURNING id::text""",
            tuple(given.values()),
        ).fetchall()
    return [row[0] for row in rows]


def settings_of(database: str, url: str, *ids: str) -> dict[str, str]:
    """The job's settings, logged in as a member of `ops_jobs` and of nothing else."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS weekly_job")
        owner.execute("CREATE ROLE weekly_job LOGIN IN ROLE ops_jobs")
    env = {"DATABASE_URL": make_conninfo(database, user="weekly_job"), "REDIS_URL": url}
    return env | ({"OPS_WEEKLY_SUBSCRIBERS": ", ".join(ids)} if ids else {})


async def summarize(env: dict[str, str], slot: datetime = MONDAY) -> Result:
    """Run the job."""
    return await asyncio.to_thread(weekly_summary.run, a_run(JOB.name, slot=slot, **env), NoParams())


async def ended(told: Told, count: int) -> list[dict[str, Any]]:
    """The next `count` jobs the workers ended."""
    return [await told() for _ in range(count)]


async def nothing_more(told: Told) -> None:
    """For a second the workers end no job."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            pytest.fail(f"one too many: {await told()}")


async def test_once_per_user_and_week_across_three_runs(bullmq: Bullmq, database: str) -> None:
    """Each user gets one report and one mail; two more runs add nothing, Redis forgetting or not; next week does."""
    ids = users(database, 5)
    env = settings_of(database, bullmq.url, *ids)
    async with bullmq.playing("serve", queues=QUEUES) as told:
        await told()
        assert await summarize(env) == Result(week="2026-W47", subscribers=5, left_out=0, queued=10, already=0)
        jobs = await ended(told, 10)
        assert Counter((job["queue"], job["data"]["userId"]) for job in jobs) == Counter(
            (queue, user) for queue in QUEUES for user in ids
        )
        assert {job["name"] for job in jobs} == {"weekly-summary"}
        week = {"week": "2026-W47", "from": "2026-11-16", "to": "2026-11-23"}
        assert all(week.items() <= job["data"].items() for job in jobs)
        assert all(job["opts"]["attempts"] == 3 for job in jobs)
        assert all(job["opts"]["backoff"] == {"type": "exponential", "delay": 2000} for job in jobs)
        assert (await summarize(env)).queued == 0
        with Redis.from_url(bullmq.url) as redis:
            redis.delete(*redis.keys("bull:*:weekly-summary-*"))
        assert (await summarize(env, MONDAY.replace(day=29))).already == 10  # the Sunday after: the same week's report
        await nothing_more(told)
        assert (await summarize(env, MONDAY.replace(day=30))).queued == 10
        assert {job["data"]["week"] for job in await ended(told, 10)} == {"2026-W48"}


KILLED = """
import json, sys
from datetime import datetime
from jobs import weekly_summary
from opslib.spec import NoParams
from tests.service.job_kit import a_run
slot = datetime.fromisoformat(sys.argv[1])
print("begun", flush=True)
print(weekly_summary.run(a_run("weekly-summary", slot=slot, **json.loads(sys.argv[2])), NoParams()).model_dump_json())
"""


async def test_kill_9_at_any_moment_doubles_and_loses_nothing(bullmq: Bullmq, database: str) -> None:
    """Killed again and again while it adds, and run to its end: every user was served once, in both queues."""
    ids = users(database, 400)
    env = settings_of(database, bullmq.url, *ids)
    counts: list[int] = []
    async with bullmq.playing("serve", queues=QUEUES) as told:
        await told()
        for attempt in range(6):
            process = subprocess.Popen(  # noqa: ASYNC220 - the workers are elsewhere
                [sys.executable, "-c", KILLED, MONDAY.isoformat(), json.dumps(env)],
                stdout=subprocess.PIPE, text=True, cwd=ROOT, env={"PATH": os.environ["PATH"]},
            )  # fmt: skip
            assert process.stdout
            assert process.stdout.readline() == "begun\n"
            await asyncio.to_thread(_first_steps, database, len(counts) and counts[-1], 7 + 13 * attempt)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            with psycopg.connect(database) as owner:
                (row,) = owner.execute("SELECT count(*) FROM ops.weekly_summaries").fetchall()
            counts.append(row[0])
        assert 0 < counts[0] < counts[-1] < 800, f"the kills came too early or too late: {counts}"
        result = await summarize(env)
        assert result.queued + result.already == 800
        jobs = await ended(told, 800)
        assert Counter((job["queue"], job["data"]["userId"]) for job in jobs) == Counter(
            (queue, user) for queue in QUEUES for user in ids
        )
        assert (await summarize(env)).already == 800
        await nothing_more(told)


def _first_steps(database: str, before: int, more: int) -> None:
    """Wait until so many more jobs are begun."""
    with psycopg.connect(database, autocommit=True) as owner:
        while True:
            (row,) = owner.execute("SELECT count(*) FROM ops.weekly_summaries").fetchall()
            if row[0] >= before + more:
                return


async def test_dead_between_adding_and_noting_it(bullmq: Bullmq, database: str) -> None:
    """The one moment the table cannot cover: the job completed and its id keeps it from being added again."""
    env = settings_of(database, bullmq.url, *users(database, 1))
    async with bullmq.playing("serve", queues=QUEUES) as told:
        await told()
        await summarize(env)
        await ended(told, 2)
        with psycopg.connect(database, autocommit=True) as owner:
            owner.execute("UPDATE ops.weekly_summaries SET queued_at = NULL")
        assert (await summarize(env)).queued == 2
        await nothing_more(told)


async def test_retried_twice_with_growing_pauses(bullmq: Bullmq, database: str) -> None:
    """Real workers that fail twice try again after 2 s and after 4 s, and then are done."""
    env = settings_of(database, bullmq.url, *users(database, 1))
    async with bullmq.playing("serve", queues=QUEUES, failures=2) as told:
        await told()
        await summarize(env)
        for job in await ended(told, 2):
            first, second, third = job["began"]
            assert 1_900 < second - first < 3_500
            assert 3_900 < third - second < 6_000


async def test_a_queue_without_a_worker_is_refused(bullmq: Bullmq, database: str) -> None:
    """Nothing is added to the other one either, nor noted as begun; once somebody works there, it goes on."""
    env = settings_of(database, bullmq.url, *users(database, 1))
    async with bullmq.playing("serve", queues=["reports"]) as told:
        await told()
        with pytest.raises(RefusedError, match=r"queue email has no worker: a job in it would wait for ever"):
            await summarize(env)
        with psycopg.connect(database) as owner:
            assert owner.execute("SELECT FROM ops.weekly_summaries").fetchall() == []
        await nothing_more(told)
        async with bullmq.playing("serve", queues=["email"]) as mailed:
            await mailed()
            assert (await summarize(env)).queued == 2


async def test_a_version_nobody_has_proven_is_refused(bullmq: Bullmq, database: str) -> None:
    """Older, newer, another make, or none said."""
    env = settings_of(database, bullmq.url, *users(database, 1))
    async with bullmq.playing("serve", queues=QUEUES) as told:
        await told()
        with Redis.from_url(bullmq.url) as redis:
            for version in ("bullmq:5.62.9", "bullmq:7.0.0", "bullmq-pro:7.1.0", "x"):
                redis.hset("bull:email:meta", "version", version)
                with pytest.raises(
                    RefusedError, match=rf"queue email is kept by {version}; writing is proven for 5\.63\.0"
                ):
                    await summarize(env)
            redis.hdel("bull:email:meta", "version")
            with pytest.raises(RefusedError, match="kept by an unknown version"):
                await summarize(env)
        await nothing_more(told)


async def test_who_may_not_be_written_to(bullmq: Bullmq, database: str) -> None:
    """Unknown, unconfirmed, suspended, leaving and gone are left out, and counted."""
    good = users(database, 2)
    bad = [
        *users(database, 1, emailConfirmed=False),
        *users(database, 1, isSuspended=True),
        *users(database, 1, deletedAt=datetime(2026, 1, 1)),  # noqa: DTZ001 - the application's column has no zone
        *users(database, 1, deletionRequestedAt=MONDAY),
        "00000000-0000-4000-8000-000000000009",
    ]
    env = settings_of(database, bullmq.url, *good, *bad)
    async with bullmq.playing("serve", queues=QUEUES) as told:
        await told()
        result = await summarize(env)
        assert (result.subscribers, result.left_out, result.queued) == (2, 5, 4)
        assert {job["data"]["userId"] for job in await ended(told, 4)} == set(good)


async def test_the_adapter_may_name_them(bullmq: Bullmq, database: str) -> None:
    """An application that asks its users says so in its own view; the setting adds to it, and nobody gets two."""
    asked, named = users(database, 2)
    with psycopg.connect(database) as owner:
        owner.execute(f"CREATE OR REPLACE VIEW ops_view.report_subscribers AS SELECT '{asked}'::uuid AS user_id")
    env = settings_of(database, bullmq.url, named, asked)
    async with bullmq.playing("serve", queues=QUEUES) as told:
        await told()
        assert (await summarize(env)).subscribers == 2
        assert {job["data"]["userId"] for job in await ended(told, 4)} == {asked, named}
        await nothing_more(told)


async def test_nobody_asked_needs_no_queue(database: str, redis: str) -> None:
    """Without subscribers nothing is refused."""
    assert (await summarize(settings_of(database, redis))).subscribers == 0


async def test_cancelled_in_the_middle(bullmq: Bullmq, database: str) -> None:
    """Stops between two users; the next run goes on."""
    env = settings_of(database, bullmq.url, *users(database, 3))
    asked = iter([False, True])
    run = a_run(JOB.name, slot=MONDAY, is_cancelled=lambda: next(asked), **env)
    async with bullmq.playing("serve", queues=QUEUES) as told:
        await told()
        with pytest.raises(CancelledError):
            await asyncio.to_thread(weekly_summary.run, run, NoParams())
        result = await summarize(env)
        assert (result.queued, result.already) == (4, 2)


async def test_settings_and_servers_that_are_wrong(database: str, redis: str) -> None:
    """Said without repeating what was set."""
    (user,) = users(database, 1)
    for wrong in ("a b", "anna@mail.example"):
        with pytest.raises(ConfigError, match="OPS_WEEKLY_SUBSCRIBERS: 1 of 2 are no ids") as caught:
            await summarize(settings_of(database, redis, user, wrong))
        assert wrong not in str(caught.value)
    with pytest.raises(SourceError, match="Redis does not answer"):
        await summarize(settings_of(database, "unix:///nowhere/redis.sock", user))


def test_weeks() -> None:
    """The last whole one, over a year's end too, in ISO's counting."""
    weeks = [Week.before(datetime(2027, 1, day, 9, tzinfo=UTC)) for day in (3, 4, 10, 11)]
    assert [str(week) for week in weeks] == ["2026-W52", "2026-W53", "2026-W53", "2027-W01"]
    assert weeks[1].monday == date(2026, 12, 28)
