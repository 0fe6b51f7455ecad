"""The engine as a whole: `runner.serve` in this process, on a Postgres of its own, as a member of ops_jobs."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from demo.postgres import PostgresServer
from opslib import runner, settings
from opslib.areas import runs
from opslib.errors import ConfigError, NotFoundError
from opslib.jobs.timing import Timing
from tests.service import attempt_jobs
from tests.service.attempt_jobs import Params
from tests.service.cluster_kit import BY_WORD, TIMING, Cluster, eventually, opened
from tests.service.run_kit import Engine


@pytest.fixture
def cluster(postgres_server: PostgresServer) -> Iterator[Cluster]:
    """On the server all tests share."""
    yield from opened(postgres_server)


@pytest.fixture
def own(own_postgres: PostgresServer) -> Iterator[Cluster]:
    """On a server to be restarted."""
    yield from opened(own_postgres)


async def test_a_run_from_queue_to_success(cluster: Cluster) -> None:
    """Taken at once, with everything its row should say; twice the same."""
    async with cluster.node(timing=BY_WORD):
        for _ in range(2):
            number = cluster.enqueue(password="in-the-params")
            row = await cluster.state(number, "SUCCESS")
            assert row["queue_delay"] == pytest.approx((row["started"] - row["due"]).total_seconds())
            assert row["duration"] == pytest.approx((row["finished"] - row["started"]).total_seconds())
            assert (row["attempt"], row["triggered_by"], row["error"], row["slot"]) == (1, "anna", None, None)
            assert row["result"]["attempt"] == 1
            assert row["heartbeat"] >= row["started"]
            assert "in-the-params" not in str(row)
            assert row["node"].endswith(f":{os.getpid()}")
        (worker,) = cluster.rows("SELECT queues, scheduler FROM ops.job_workers")
        assert worker == {"queues": {"default": 4, "narrow": 4}, "scheduler": True}
    assert cluster.rows("SELECT 1 FROM ops.job_workers") == []
    (total,) = cluster.rows("SELECT outcome, runs, buckets FROM ops.job_totals")
    assert (total["outcome"], total["runs"], sum(total["buckets"])) == ("SUCCESS", 2, 2)


async def test_retries_wait_twice_as_long_each_time(cluster: Cluster) -> None:
    """Two failures, then success: 0.2 s and 0.4 s between; QUEUED meanwhile, with the error there to be read."""
    async with cluster.node():
        number = cluster.enqueue("thrice", what="recover")
        row = await cluster.state(number, "SUCCESS")
        attempts = runs.attempts(cluster.people, number)
        assert [attempt["outcome"] for attempt in attempts] == ["FAILED", "FAILED", "SUCCESS"]
        pauses = [(b["started_at"] - a["finished_at"]).total_seconds() for a, b in itertools.pairwise(attempts)]
        assert pauses[0] >= 0.2
        assert pauses[1] >= 0.4
        assert (row["attempt"], row["error"]) == (3, None)
        exhausted = await cluster.state(cluster.enqueue("thrice", what="fail"), "FAILED")
        assert (exhausted["attempt"], exhausted["error"]) == (3, "it never works")
        once = await cluster.state(cluster.enqueue(what="fail"), "FAILED")
        assert once["attempt"] == 1
    number = cluster.enqueue("thrice")
    engine = Engine(cluster.people)
    for failures in (1, 2):
        engine.finish(engine.take(), "FAILED", f"failure {failures}")
        waiting = cluster.run(number)
        assert (waiting["state"], waiting["error"]) == ("QUEUED", f"failure {failures}")
        pause = waiting["retry_at"] - runs.attempts(cluster.people, number)[-1]["finished_at"]
        assert pause.total_seconds() == pytest.approx(0.1 * 2**failures, abs=0.05)
        cluster.rows("UPDATE ops.procrastinate_jobs SET scheduled_at = now() RETURNING 1")


async def test_priorities_and_room(cluster: Cluster, tmp_path: Path) -> None:
    """One at a time, the highest first, whatever came first; another queue is not held up by it."""
    path = tmp_path / "order"
    await _declared_without_worker(cluster)
    low, middle, high = (cluster.enqueue("narrow", seconds=1, path=path, priority=p) for p in (-1, 0, 1))
    async with cluster.node(concurrency={"narrow": 1}):
        other = await cluster.state(cluster.enqueue(), "SUCCESS")
        last = await cluster.state(low, "SUCCESS")
        assert other["started"] < last["started"], "it waited for the other queue"
    started = cluster.rows("SELECT id FROM ops.job_runs WHERE job = 'narrow' ORDER BY started_at")
    assert [row["id"] for row in started] == [high, middle, low]
    spans = cluster.rows("SELECT started_at, finished_at FROM ops.job_runs WHERE job = 'narrow' ORDER BY 1")
    assert all(a["finished_at"] <= b["started_at"] for a, b in itertools.pairwise(spans))


async def _declared_without_worker(cluster: Cluster) -> None:
    async with cluster.node(worker=False):
        pass


async def test_at_a_time(cluster: Cluster) -> None:
    """Not before; the delay counts from then."""
    async with cluster.node():
        await cluster.state(cluster.enqueue(), "SUCCESS")
        (now,) = cluster.rows("SELECT now() + interval '2 seconds' AS at")
        row = await cluster.state(cluster.enqueue(at=now["at"]), "SUCCESS")
        assert row["started"] >= now["at"]
        assert row["queue_delay"] == pytest.approx((row["started"] - now["at"]).total_seconds())


async def test_cancel(cluster: Cluster) -> None:
    """Queued: at once, and it never runs. Running: it hears of it and acknowledges. Ended: nothing changes."""
    await _declared_without_worker(cluster)
    queued = cluster.enqueue(seconds=30)
    assert runs.cancel(cluster.people, queued, "bob") == "CANCELLED"
    assert runs.cancel(cluster.people, queued, "carol") == "CANCELLED"
    async with cluster.node(timing=BY_WORD):
        await cluster.state(cluster.enqueue(), "SUCCESS")
        running = cluster.enqueue(seconds=30)
        await cluster.state(running, "RUNNING")
        assert runs.cancel(cluster.people, running, "bob") == "RUNNING"
        row = await cluster.state(running, "CANCELLED")
        assert row["cancel_requested"] <= row["cancel_acknowledged"] <= row["finished"]
        assert cluster.run(queued)["attempt"] == 0
        for number in (queued, running):
            assert cluster.run(number)["cancel_requested_by"] == "bob"
        assert runs.cancel(cluster.people, running, "carol") == "CANCELLED"
    with pytest.raises(NotFoundError, match="no run 4711"):
        runs.cancel(cluster.people, 4711, "bob")


async def test_cancel_and_work_after_a_postgres_restart(own: Cluster, own_postgres: PostgresServer) -> None:
    """What ran runs on and counts; a cancel is acknowledged; new work is heard of without polling."""
    async with own.node(timing=replace(Timing(), poll=600)):
        survivor, victim = own.enqueue(seconds=4), own.enqueue(seconds=60)
        await own.state(victim, "RUNNING")
        await asyncio.to_thread(own_postgres.restart)
        own.again()
        runs.cancel(own.people, victim, "bob")
        row = await own.state(victim, "CANCELLED")
        assert row["cancel_requested"] <= row["cancel_acknowledged"] <= row["finished"]
        assert (await own.state(survivor, "SUCCESS"))["attempt"] == 1
        for _ in range(2):
            await own.state(own.enqueue(), "SUCCESS")
        (attempts,) = own.rows("SELECT count(*) AS n FROM ops.job_attempts WHERE lost")
        assert attempts["n"] == 0


async def test_listening_comes_back(cluster: Cluster) -> None:
    """The line is cut; work queued right then, unheard, is found, and what comes later is heard at once."""
    async with cluster.node(timing=BY_WORD):
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE %s OR query = 'SELECT 1'"
        await eventually(lambda: cluster.rows(cut, "LISTEN%"))
        for _ in range(2):
            await cluster.state(cluster.enqueue(), "SUCCESS")


async def test_silent_without_anybody_alive(cluster: Cluster) -> None:
    """A run whose last sign of life is too old is FAILED for whoever looks, with no process there to say so."""
    await _declared_without_worker(cluster)
    number = cluster.enqueue()
    (worker,) = cluster.rows("SELECT ops.job_worker_start('gone:1', '{}', false) AS worker")
    (taken,) = cluster.rows("SELECT * FROM ops.job_take(%s, '{default}', interval '5 minutes')", worker["worker"])
    assert cluster.run(number)["state"] == "RUNNING"
    old = "UPDATE ops.job_attempts SET heartbeat_at = now() - interval '5 minutes 1 second'"
    cluster.rows(f"{old} RETURNING 1")
    row = cluster.run(number)
    assert row["state"] == "FAILED"
    assert row["error"].startswith("no heart-beat since")
    assert row["finished"] is not None
    # Neither a late beat nor a late result brings it back; the result is refused and counted.
    assert cluster.rows("SELECT ops.job_beat(%s, %s) AS x", worker["worker"], [taken["attempt"]]) == [{"x": True}]
    assert cluster.run(number)["state"] == "FAILED"
    finish = "SELECT ops.job_finish(%s, 'SUCCESS', NULL, NULL) AS state"
    for refused in (1, 2):
        assert cluster.rows(finish, taken["attempt"]) == [{"state": None}]
        assert cluster.run(number)["outcome"] == "FAILED"
        (count,) = cluster.rows("SELECT count FROM ops.job_counts WHERE event = 'result_refused'")
        assert count["count"] == refused


async def test_a_job_that_kills_its_process_is_given_up(cluster: Cluster) -> None:
    """Taken over five times; then it is FAILED, or it would go round for ever."""
    await _declared_without_worker(cluster)
    number = cluster.enqueue()
    for attempt in range(1, 6):
        (worker,) = cluster.rows("SELECT ops.job_worker_start('doomed:1', '{}', false) AS worker")
        (taken,) = cluster.rows("SELECT * FROM ops.job_take(%s, '{default}', '5 minutes')", worker["worker"])
        assert taken["number"] == attempt
        cluster.rows("SELECT ops.job_worker_stop(%s)", worker["worker"])
        (reaped,) = cluster.rows("SELECT * FROM ops.job_reap(0, '{}', '45 seconds')")
        assert (reaped["run"], reaped["state"]) == (number, "QUEUED" if attempt < 5 else "FAILED")
    assert cluster.run(number)["error"] == "the process doomed:1 that ran attempt 5 is gone"


async def test_leaving(cluster: Cluster) -> None:
    """Told to leave, a process finishes what it can and gives the rest back, to be taken at once by another."""
    async with cluster.node(timing=replace(TIMING, drain=5)):
        short, long = cluster.enqueue(seconds=1), cluster.enqueue(seconds=100)
        await cluster.state(short, "RUNNING")
        await cluster.state(long, "RUNNING")
    assert cluster.run(short)["state"] == "SUCCESS"
    row = cluster.run(long)
    assert (row["state"], row["error"]) == ("QUEUED", "the process that ran it was told to leave")
    async with cluster.node():
        assert (await cluster.state(long, "RUNNING"))["attempt"] == 2
        runs.cancel(cluster.people, long, "anna")
        await cluster.state(long, "CANCELLED")


async def test_a_job_without_its_settings(cluster: Cluster) -> None:
    """It is declared, says what it lacks, and is not scheduled; without a schedule of its own it fails and says why."""
    async with cluster.node():
        jobs = {job["job"]: job["missing"] for job in runs.declared(cluster.people)}
        assert jobs["lacking"] == ["KINGUIN_API_KEY"]
        assert jobs["once"] == []
        row = await cluster.state(cluster.enqueue("lacking"), "FAILED")
        assert row["error"].startswith("KINGUIN_API_KEY is not set")


async def test_what_is_no_longer_there(cluster: Cluster) -> None:
    """A job the newest release does not know is retired; one that was queued for it fails, and says so."""
    await _declared_without_worker(cluster)
    old = cluster.enqueue("short")
    async with cluster.node({"once": attempt_jobs.JOBS["once"]}):
        assert [job["job"] for job in runs.declared(cluster.people)] == ["once"]
        row = await cluster.state(old, "FAILED")
        assert row["error"] == "this release has no job short: bring every node to the same release"
        with pytest.raises(NotFoundError, match="no job short is declared"):
            cluster.enqueue("short")


async def test_old_runs_are_forgotten(cluster: Cluster) -> None:
    """Beyond the age limit, and a month for the archive; totals stay."""
    async with cluster.node(timing=replace(TIMING, prune=0.2)):
        old, new = cluster.enqueue(), cluster.enqueue()
        await cluster.state(old, "SUCCESS")
        await cluster.state(new, "SUCCESS")
        cluster.rows("UPDATE ops.job_runs SET finished_at = now() - interval '121 days' WHERE id = %s RETURNING 1", old)
        await eventually(lambda: not cluster.rows("SELECT 1 FROM ops.job_runs WHERE id = %s", old))
        assert cluster.run(new)["state"] == "SUCCESS"
        assert cluster.rows("SELECT runs FROM ops.job_totals") == [{"runs": 2}]


def test_in_the_foreground(cluster: Cluster) -> None:
    """Recorded like any run, by whoever asked, and taken by no worker."""
    numbers: list[int] = []
    for what, state in (("work", "SUCCESS"), ("fail", "FAILED")):
        ended = runner.execute(
            cluster.settings,
            attempt_jobs.JOBS["once"],
            Params(what=what),
            triggered_by="anna",
            started=numbers.append,
            timing=TIMING,
        )
        assert ended == state
        row = cluster.run(numbers[-1])
        assert (row["state"], row["triggered_by"], row["attempt"]) == (state, "anna", 1)
    assert cluster.rows("SELECT 1 FROM ops.job_workers") == []
    assert cluster.rows("SELECT 1 FROM ops.procrastinate_jobs") == []


def test_a_catalog_that_is_wrong() -> None:
    """Each way has its message."""
    with pytest.raises(ConfigError, match="calls itself once"):
        runner.load({"twice": attempt_jobs.JOBS["once"]})


async def test_no_schema(postgres_server: PostgresServer) -> None:
    """A database without our schema is said at once, with what to do."""
    loaded = settings.load({"OPS_DATABASE_URL": postgres_server.dsn("template1")})
    with pytest.raises(Exception, match="opsctl migrate up"):
        await runner.serve(loaded, attempt_jobs.JOBS, timing=TIMING)
