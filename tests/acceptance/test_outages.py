"""Redis or Postgres stopped, hung or absent: the page comes, says so, shows nothing stale, and nothing is lost."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from bullmq import Queue, Worker

from demo import app_schema
from demo.postgres import PostgresServer
from demo.processes import Server
from demo.redis import RedisServer
from opslib.contract import contract, migrate
from tests.acceptance.exporter import RECOVERY, Exporter, Page, value

WEBHOOK = """INSERT INTO webhook_logs ("externalId", "webhookType", payload, "signatureValid", processed, result)
             VALUES (gen_random_uuid(), 'nowpayments_ipn', '{}', true, true, '{"success": true}')"""
GAUGES = {"redis": "bitloot_queue_waiting", "postgres": "bitloot_orders"}
COLLECTOR = {"redis": "queues", "postgres": "ledger/webhook"}


class Shop:
    """Both servers with the application's schema, and something happening in them."""

    def __init__(self, redis: RedisServer, postgres: PostgresServer) -> None:
        self.servers: dict[str, Server] = {"redis": redis, "postgres": postgres}
        self.redis, self.postgres = redis, postgres
        self.jobs = 0
        self.webhooks = 0

    def work(self, *, jobs: int = 0, webhooks: int = 0) -> None:
        """Let so many jobs be done by a real worker, and so many webhooks arrive."""
        if jobs:
            asyncio.run(self._work(jobs))
            self.jobs += jobs
        if webhooks:
            with self.postgres.connect("shop") as connection:
                for _ in range(webhooks):
                    connection.execute(WEBHOOK)
            self.webhooks += webhooks

    async def _work(self, jobs: int) -> None:
        done = asyncio.Event()
        finished = 0

        async def process(_job: object, _token: str) -> None:
            nonlocal finished
            finished += 1
            if finished == jobs:
                done.set()

        options = {"connection": self.redis.tcp_url}
        queue = Queue("catalog", options)
        for _ in range(jobs):
            await queue.add("reprice", {}, {"removeOnComplete": True})
        worker = Worker("catalog", process, options)
        async with asyncio.timeout(60):
            await done.wait()
            while (await queue.getJobCounts("active"))["active"]:  # noqa: ASYNC110 - no event says so
                await asyncio.sleep(0.02)
        await worker.close()
        await queue.close()

    def exact(self, page: Page) -> bool:
        """Does the page say just what was done?"""
        return (
            value(page, "bitloot_queue_jobs_total", queue="catalog", result="completed", name="reprice") == self.jobs
            and value(page, "bitloot_ipn_total", status="ok") == self.webhooks
        )

    def counted(self, page: Page) -> tuple[float | None, float | None]:
        """Both counters."""
        return (
            value(page, "bitloot_queue_jobs_total", queue="catalog", result="completed", name="reprice"),
            value(page, "bitloot_ipn_total", status="ok"),
        )


@pytest.fixture
def shop(own_redis: RedisServer, own_postgres: PostgresServer) -> Shop:
    """A shop on servers of this test's own."""
    with own_postgres.connect() as admin:
        admin.execute("CREATE DATABASE shop")
        admin.execute("CREATE ROLE exporter LOGIN")
    dsn = own_postgres.dsn("shop")
    app_schema.create(dsn)
    migrate.up(dsn)
    contract.apply(dsn)
    with own_postgres.connect() as admin:
        admin.execute("GRANT ops_exporter TO exporter")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            """INSERT INTO orders (email, status, "sourceType", "totalCrypto")
               VALUES ('a@example.com', 'paid', 'custom', 5)"""
        )
    return Shop(own_redis, own_postgres)


@pytest.fixture
def exporter(shop: Shop, tmp_path: Path) -> Exporter:
    """An exporter of that shop, not started."""
    return Exporter(
        "queues",
        "ledger",
        log=tmp_path / "exporter.log",
        settings={
            "REDIS_URL": shop.redis.url,
            "DATABASE_URL": shop.postgres.dsn("shop", user="exporter"),
            "OPS_LEDGER_REFRESH_SECONDS": "1",
            "OPS_LEDGER_GAUGES_SECONDS": "2",
        },
    )


def up(page: Page, which: str) -> float | None:
    """What the page says of a source."""
    return value(page, "ops_collector_up", collector=COLLECTOR[which])


def lagging(exporter: Exporter, *, longer_than: float) -> float:
    """How far the store is behind the queues, once it is more than that."""
    queues = {"exporter": "queues/default"}
    page = exporter.until(
        lambda page: (value(page, "ops_checkpoint_lag_seconds", **queues) or 0) > longer_than, "a growing lag"
    )
    return value(page, "ops_checkpoint_lag_seconds", **queues) or 0


def names(page: Page) -> set[str]:
    """Which families are there."""
    return {name for name, _ in page}


@pytest.mark.parametrize("how", ["hung", "killed"])
@pytest.mark.parametrize("which", ["redis", "postgres"])
def test_a_source_that_goes_away_and_comes_back(shop: Shop, exporter: Exporter, which: str, how: str) -> None:
    """Every page in time, `up` 0 at once, counters stand; well again in seconds, and exact."""
    other = "postgres" if which == "redis" else "redis"
    with exporter:
        shop.work(jobs=20, webhooks=3)
        exporter.until(shop.exact, "the first counts")
        exporter.until(lambda page: GAUGES["postgres"] in names(page) and GAUGES["redis"] in names(page), "gauges")

        server = shop.servers[which]
        server.pause() if how == "hung" else server.kill()
        try:
            others = 0
            for _ in range(5):
                page = exporter.scrape()
                assert up(page, which) == 0
                assert GAUGES[which] not in names(page), "a stale gauge"
                others += GAUGES[other] in names(page)  # on a busy machine it may come too late for a page
                assert shop.counted(page) == (20, 3), "a counter moved or vanished with its source"
            assert others > 0, "one source took the other's gauges along"
            if which == "redis":
                shop.work(webhooks=2)
            else:
                shop.work(jobs=7)
                lagging(exporter, longer_than=lagging(exporter, longer_than=0))
                assert shop.counted(exporter.scrape()) == (20, 3), "shown before it was saved"
        finally:
            server.resume() if how == "hung" else server.start()
        page = exporter.until(lambda page: up(page, which) == 1 and GAUGES[which] in names(page), "recovery", RECOVERY)
        shop.work(jobs=5, webhooks=1)
        exporter.until(shop.exact, "exact counts after the outage")


@pytest.mark.parametrize("how", ["hung", "absent"])
@pytest.mark.parametrize("which", ["redis", "postgres"])
def test_a_source_that_is_not_there_at_the_start(shop: Shop, exporter: Exporter, which: str, how: str) -> None:
    """The page comes all the same; not ready; once the source is there, all of what happened meanwhile is counted."""
    server = shop.servers[which]
    shop.work(jobs=4, webhooks=2)
    server.pause() if how == "hung" else server.kill()
    try:
        exporter.start()
        page = exporter.scrape()
        assert up(page, which) == 0
        assert GAUGES[which] not in names(page)
        if which == "postgres":
            shop.work(jobs=3)
            assert shop.counted(exporter.scrape()) == (None, None), "shown before it was saved"
        else:
            shop.work(webhooks=1)
    finally:
        server.resume() if how == "hung" else server.start()
    with exporter:
        exporter.until(lambda page: up(page, which) == 1, "recovery", RECOVERY)
        exporter.until(shop.exact, "exact counts")


def test_killed_twenty_times_while_jobs_flow(shop: Shop, exporter: Exporter) -> None:
    """Kill -9 at any moment: no count is lost, doubled, or seen to step back, and each duration is known."""
    last: tuple[float, float] = (0, 0)
    over = threading.Event()

    def flow() -> None:
        while not over.is_set():
            shop.work(jobs=20, webhooks=2)
            over.wait(0.1)  # a stream keeps 10,000 events: at full speed it would be trimmed while nobody reads

    chance = random.Random(11)
    with ThreadPoolExecutor(1) as pool:
        flowing = pool.submit(flow)
        try:
            for _ in range(20):
                exporter.start()
                exporter.until(lambda page: None not in shop.counted(page), "counters")
                over.wait(
                    chance.uniform(0, 1.2)
                )  # a save is due every second: before it, after it, in the middle of it
                jobs, webhooks = shop.counted(exporter.scrape())
                assert ((jobs or 0) >= last[0], (webhooks or 0) >= last[1]) == (True, True), "a counter stepped back"
                last = (jobs or 0, webhooks or 0)
                exporter.kill()
        finally:
            over.set()
        flowing.result(60)
    with exporter:
        page = exporter.until(shop.exact, "exact counts after twenty kills")
        assert shop.jobs > 200, "nothing flowed"
        assert value(page, "bitloot_job_duration_seconds_count", queue="catalog", name="reprice") == shop.jobs
        assert not value(page, "bitloot_queue_event_gaps_total", queue="catalog")
