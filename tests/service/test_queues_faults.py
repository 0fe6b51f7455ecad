"""The queue exporter through what a Redis does in bad hours: loads, comes back as an empty replica, loses its clock."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

import pytest
from redis import Redis

from demo.postgres import PostgresServer
from demo.processes import private_directory, wait_until
from demo.redis import RedisServer, redis_server
from opslib.contract import migrate
from tests.bench.event_producer import Truth, produce
from tests.service.queue_kit import Seeded, completed, running, sentinel

TEN_MINUTES = 36_000  # jobs of a shop that runs sixty a second


async def test_fail_over_to_an_empty_replica(debian_redis: Path, database: str) -> None:
    """The replica has nothing: the counts stay, the gap is counted, and what happens from then on is counted once."""
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(private_directory()) for _ in range(3)]
        at_once = ["--repl-diskless-sync-delay", "0"]
        master = stack.enter_context(redis_server(folders[0], debian_redis, at_once))
        replica_args = ["--replicaof", f"127.0.0.1 {master.port}", "--replica-read-only", "no"]
        replica = stack.enter_context(redis_server(folders[1], debian_redis, replica_args))
        port = stack.enter_context(sentinel(folders[2], debian_redis, master))
        first, second = (stack.enter_context(Redis.from_url(server.url)) for server in (master, replica))
        async with running(f"redis+sentinel://127.0.0.1:{port}/mymaster", dsn=database) as exporter:
            Seeded(first, b"q").run(*((str(n), b"n") for n in range(20)))
            await exporter.until(lambda page: completed(page, "q") == 20)
            master.kill()
            second.flushall()
            page = await exporter.until(lambda page: not page.up)
            assert "bitloot_queue_waiting" not in page.values
            wait_until(lambda: second.role()[0] == b"master", 60, "the replica to take over")
            page = await exporter.until(lambda page: page.up)
            assert completed(page, "q") == 20
            Seeded(second, b"q").run(("a", b"n"), ("b", b"n"), ("c", b"n"))
            page = await exporter.until(lambda page: completed(page, "q") == 23)
            assert page.get("bitloot_queue_event_gaps_total", queue="q") == 1
            assert page.get("bitloot_queue_events_lost_total", queue="q") == 0, "nobody can say how many"
            await asyncio.sleep(0.5)
            assert completed(await exporter.page(), "q") == 23


async def test_redis_hung_at_the_start(own_redis: RedisServer) -> None:
    """No queue is known, so there is nothing to read: it is asked whether it is there all the same."""
    with own_redis.paused():
        async with running(own_redis.url) as exporter:
            for _ in range(3):
                assert not (await exporter.page()).up
    async with running(own_redis.url) as exporter:
        await exporter.until(lambda page: page.up)


async def test_redis_loading(debian_redis: Path, database: str) -> None:
    """It answers, but only `-LOADING`: `up 0` within a second, no gauges; loaded, every job is counted once."""
    # Between two keys of the base file it looks up and answers, every 5 ms.
    slow = ["--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024"]
    with private_directory() as folder, redis_server(folder, debian_redis, slow) as server:
        async with running(server.tcp_url, dsn=database) as exporter:
            with Redis.from_url(server.url) as client:
                queue = Seeded(client, b"q")
                queue.run(*((str(n), b"n") for n in range(50)))
                for number in range(600):  # some seconds to load
                    client.set(f"filler-{number}", os.urandom(1100))  # what can be compressed comes many keys at once
                await exporter.until(lambda page: completed(page, "q") == 50)
                queue.run(*((f"late-{n}", b"n") for n in range(7)))
                client.bgrewriteaof()
                wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], 60, "the rewrite")
                server.kill()
            starting = asyncio.create_task(asyncio.to_thread(server.start))
            said = set()
            while not starting.done():
                began = time.monotonic()
                page = await exporter.page()
                assert time.monotonic() - began < 2, "a second, and one for a busy machine"
                if not page.up:
                    said.add(str(exporter.collector._tail.failure))
                    assert "bitloot_queue_waiting" not in page.values
                    assert completed(page, "q") >= 50
                await asyncio.sleep(0.05)
            await starting
            assert any("loading" in words.lower() for words in said), said
            page = await exporter.until(lambda page: page.up and completed(page, "q") == 57)
            assert page.total("bitloot_queue_event_gaps_total") == 0


async def test_the_servers_clock_jumps(redis: str, database: str) -> None:
    """Ids an hour ahead, then a clock set back: each job is counted once, across a restart too, and no age is negative.

    A server whose clock went back gives ids that go on from its last one; so does this one, told an id an hour ahead.
    """
    ahead = int(time.time() * 1000) + 3_600_000
    with Redis.from_url(redis) as client:
        queue = Seeded(client, b"q")
        async with running(redis, dsn=database) as exporter:
            queue.run(("1", b"n"))
            await exporter.until(lambda page: completed(page, "q") == 1)
            for number, event in enumerate(("added", "waiting", "active")):
                client.xadd(queue.key(b"events"), {"event": event, "jobId": "2", "name": "n"}, id=f"{ahead}-{number}")
            client.xadd(queue.key(b"events"), {"event": "completed", "jobId": "2", "returnvalue": "1"})
            queue.run(("3", b"n"))
            queue.wait("w", timestamp=ahead)
            page = await exporter.until(
                lambda page: (
                    completed(page, "q") == 3
                    and page.get("bitloot_queue_oldest_waiting_age_seconds", queue="q") is not None
                )
            )
            assert page.get("bitloot_queue_oldest_waiting_age_seconds", queue="q") == 0
            assert page.total("bitloot_job_duration_seconds_sum") < 60
            assert page.total("bitloot_queue_event_gaps_total") == 0
        queue.run(("4", b"n"))
        async with running(redis, dsn=database) as exporter:
            page = await exporter.until(lambda page: completed(page, "q") == 4)
            assert page.total("bitloot_queue_event_gaps_total") == 0


@pytest.mark.timeout(300)
async def test_postgres_away_for_ten_minutes_of_traffic(redis: str, own_postgres: PostgresServer) -> None:
    """As many jobs as ten minutes bring: gauges go on, counters stand, the lag grows; then all are counted once."""
    dsn = own_postgres.dsn("postgres")
    migrate.up(dsn)

    def traffic() -> Truth:
        # The streams take it all: how fast a busy machine reads them is not asked here.
        with Redis.from_url(redis, socket_timeout=60) as client:
            return produce(client, queues=4, jobs=TEN_MINUTES, rate=8000, length=TEN_MINUTES * 2)

    async with running(redis, dsn=dsn) as exporter:
        await exporter.ready()
        lag = 0.0
        up = []
        with own_postgres.paused():
            flowing = asyncio.create_task(asyncio.to_thread(traffic))
            while not flowing.done():
                page = await exporter.page()
                up.append(page.up)
                assert page.total("bitloot_queue_jobs_total") == 0, "shown before it was saved"
                lag = max(lag, page.total("ops_checkpoint_lag_seconds"))
                await asyncio.sleep(0.2)
            truth = await flowing
            await exporter.until(lambda page: page.total("ops_checkpoint_lag_seconds") > max(lag, truth.took))
        assert any(up), "on a busy machine many a scrape comes too late"
        page = await exporter.until(lambda page: page.total("bitloot_queue_jobs_total") == truth.ended, 120)
        assert page.by("bitloot_queue_jobs_total", "queue", "result", "name") == dict(truth.jobs)
        await exporter.until(lambda page: page.total("ops_checkpoint_lag_seconds") == 0, 60)
    async with running(redis, dsn=dsn) as exporter:
        assert (await exporter.ready()).by("bitloot_queue_jobs_total", "queue", "result", "name") == dict(truth.jobs)
