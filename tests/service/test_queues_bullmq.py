"""The exporter against real BullMQ in Node, 5.63.0 and the newest: every job that ended counted once, by name."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from demo.processes import wait_until
from tests.service.queue_kit import VERSIONS, Bullmq, Page, install, running

SECRET = "planted-in-the-payload"  # of every job


@pytest.fixture(scope="session", params=VERSIONS)
def folder(request: pytest.FixtureRequest) -> Path:
    """Where that version of BullMQ is installed."""
    return install(request.param)


@pytest.fixture
def bullmq(folder: Path, redis: str) -> Bullmq:
    """BullMQ on an empty Redis."""
    return Bullmq(folder, redis)


def expected(counts: dict[str, int]) -> dict[tuple[str, ...], float]:
    """A truth's counts by their labels."""
    return {tuple(json.loads(key)): value for key, value in counts.items()}


def assert_exact(page: Page, truth: dict[str, Any]) -> None:
    """The page says what the workers did, number by number."""
    assert page.by("bitloot_queue_jobs_total", "queue", "result", "name") == expected(truth["jobs"])
    assert page.by("bitloot_queue_retries_total", "queue", "name") == expected(truth["retries"])
    assert page.total("bitloot_queue_events_lost_total") == page.total("bitloot_queue_event_gaps_total") == 0
    assert page.total("bitloot_job_duration_seconds_count") == truth["ended"]
    mean = page.total("bitloot_job_duration_seconds_sum") / truth["ended"]
    # On an idle machine within 0.2 ms; where tests compete for it, Redis notes an event a little after the worker did.
    assert mean == pytest.approx(truth["seconds"] / truth["ended"], abs=0.005)
    assert SECRET not in page.text


async def test_two_thousand_jobs_are_counted_exactly(bullmq: Bullmq) -> None:
    """Completed jobs removed at once, retries, final failures, delays, priorities: counts by name, mean duration."""
    async with running(bullmq.url) as exporter:
        await exporter.ready()
        truth = await bullmq.play("crowd", jobs=2000, seconds=1, secret=SECRET)
        page = await exporter.until(lambda page: page.total("bitloot_queue_jobs_total") >= 2000)
        assert_exact(page, truth)
        started = page.total("bitloot_job_wait_seconds_count")
        assert started == 2000 + page.total("bitloot_queue_retries_total"), "each attempt had waited once"
        await asyncio.sleep(0.6)
        assert_exact(await exporter.page(), truth)


async def test_exact_though_the_exporter_dies_again_and_again(bullmq: Bullmq, database: str) -> None:
    """Killed in the middle, the next one goes on from the checkpoint: no loss, no double count, nothing shown early."""
    async with bullmq.playing("crowd", jobs=2000, seconds=5, secret=SECRET) as told:
        shown: dict[tuple[str, ...], float] = {}
        with Redis.from_url(bullmq.url) as redis:
            wait_until(lambda: len(redis.keys("bull:*:meta")) == 3, 60, "the queues")
        for _ in range(4):
            async with running(bullmq.url, dsn=database, stop=False) as exporter:
                before = sum(shown.values())
                page = await exporter.until(lambda page, b=before: page.total("bitloot_queue_jobs_total") > b + 50)
                now = page.by("bitloot_queue_jobs_total", "queue", "result", "name")
                assert all(now[key] >= value for key, value in shown.items()), "a counter stepped back"
                shown = now
        async with running(bullmq.url, dsn=database) as exporter:
            truth = await told()
            page = await exporter.until(lambda page: page.total("bitloot_queue_jobs_total") >= 2000)
            assert_exact(page, truth)
    async with running(bullmq.url, dsn=database) as exporter:
        await exporter.ready()
        await asyncio.sleep(0.6)
        assert_exact(await exporter.page(), truth)


async def test_every_way_a_job_can_go(bullmq: Bullmq) -> None:
    """Stalled, delayed, prioritized, retried with and without back-off and by hand, removed, a flow, a pause."""
    async with running(bullmq.url) as exporter:
        await exporter.ready()
        truth = await bullmq.play("ways", queue="ways")
        page = await exporter.until(lambda page: page.total("bitloot_queue_jobs_total") >= truth["ended"])
        assert page.by("bitloot_queue_jobs_total", "queue", "result", "name") == expected(truth["jobs"])
        assert page.by("bitloot_queue_retries_total", "queue", "name") == expected(truth["retries"])
        assert page.by("bitloot_queue_stalled_total", "queue") == {("ways",): 1}
        mean = page.total("bitloot_job_duration_seconds_sum") / page.total("bitloot_job_duration_seconds_count")
        assert mean == pytest.approx(truth["seconds"] / truth["ended"], abs=0.02)  # eleven jobs; 2,000 above
        waited = page.get("bitloot_job_wait_seconds_sum", queue="ways", name="patient")
        assert 0.11 < (waited or 0) <= truth["patience"], "the pause is time waited"
        assert (page.get("bitloot_job_wait_seconds_sum", queue="ways", name="later") or 0) < 2.0, "since it was due"
        last = page.get("bitloot_queue_last_activity_timestamp_seconds", queue="ways")
        assert last is not None


@pytest.mark.parametrize("paused", [False, True])
async def test_a_queue_at_rest(bullmq: Bullmq, paused: bool) -> None:  # noqa: FBT001
    """Each state has its number; the oldest waiting its age; the next delayed its time; paused is told."""
    truth = await bullmq.play("rest", queue="rest", paused=paused)
    async with running(bullmq.url) as exporter:
        page = await exporter.until(lambda page: page.get("bitloot_queue_failed", queue="rest"))
        value = {name.removeprefix("bitloot_queue_"): page.get(name, queue="rest") for name in page.values}
        waiting = value["waiting"], value["paused"]
        # A pause sets the waiting aside; BullMQ 6 leaves them where they are.
        assert waiting in ([(2, 0), (0, 2)] if paused else [(2, 0)])
        states = ("active", "completed", "failed", "delayed", "prioritized", "waiting_children", "is_paused")
        assert [value[state] for state in states] == [0, 0, 1, 1, 1, 1, paused]
        assert value["next_delayed_timestamp_seconds"] == truth["due"] / 1000
        now = page.get("ops_collector_last_success_timestamp_seconds", collector="queues")
        assert value["oldest_waiting_age_seconds"] == pytest.approx(now - truth["first"] / 1000, abs=2)
        assert page.get("bitloot_queue_oldest_waiting_age_seconds", queue="rest-children") is not None
        assert page.get("bitloot_queue_next_delayed_timestamp_seconds", queue="rest-children") is None
        assert page.get("bitloot_queue_workers", queue="rest") == 0


async def test_workers_are_seen(bullmq: Bullmq) -> None:
    """Named and unnamed workers are counted, per queue, whatever its name; a queue without any has 0."""
    name = 'a "queue" with é'
    async with bullmq.playing("stay", queue=name, workers=3) as ready:
        await ready()
        async with running(bullmq.url) as exporter:
            page = await exporter.until(lambda page: page.get("bitloot_queue_workers", queue=name))
            assert page.get("bitloot_queue_workers", queue=name) == 3
            assert page.get("bitloot_queue_worker_present", queue=name) == 1
