"""The Redis users of ours, tried with every command the server knows, and with the official BullMQ client."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from redis import Redis

from demo.redis import RedisServer
from opsctl.commands.redis_acl import redis_acl_
from opslib.areas import queue_writes, redis_acl
from tests.service import acl_kit
from tests.service.queue_kit import running

INSIDE, OUTSIDE = "bull:q:1", "app:session:1"


@pytest.fixture
def users(own_redis: RedisServer) -> RedisServer:
    """A server with both, and nothing to lose."""
    acl_kit.make_users(own_redis)
    return own_redis


def test_every_command_as_either_user(users: RedisServer) -> None:
    """`ops_read` writes nothing; neither does anything dangerous, nor touches a key outside the queues."""
    verbs = acl_kit.verbs(users)
    assert len(verbs) > 300
    may = {
        (user, key): {verb.name for verb in verbs if acl_kit.permitted(users, user, verb, key)}
        for user in redis_acl.USERS
        for key in (INSIDE, OUTSIDE)
    }
    writes = {verb.name for verb in verbs if "write" in verb.flags}
    for (user, key), done in may.items():
        assert done & {verb.name for verb in verbs if acl_kit.forbidden(verb, user, inside=key == INSIDE)} == set()
        assert done & {"subscribe", "publish", "multi"} == set()
    assert may["ops_read", INSIDE] & writes == may["ops_write", OUTSIDE] & writes == set()
    assert {"hget", "zrange", "xread", "scan", "eval_ro"} <= may["ops_read", INSIDE]
    assert {"hset", "zadd", "del", "xadd", "evalsha"} <= may["ops_write", INSIDE]
    assert "flushall" in writes, "or the above proved nothing"


async def test_a_script_is_no_way_round(users: RedisServer) -> None:
    """What a script calls is asked of the user, too."""
    with Redis(unix_socket_path=str(users.socket), username="ops_write", password="pw") as client:
        for command in (
            "redis.call('FLUSHALL')",
            "redis.call('SET', 'app:1', 'x')",
            "redis.call('KEYS', '*')",
        ):
            with pytest.raises(Exception, match=r"(?i)permission|can't (run|access)"):
                client.eval(command, 0)


def url(server: RedisServer, user: str) -> str:
    """As that user."""
    return server.url.replace("unix://", f"unix://{user}:pw@")


async def test_the_official_client_works_as_ops_write_and_not_as_ops_read(users: RedisServer) -> None:
    """Everything an operator does to a queue; for the reader each of it is refused and leaves nothing."""

    async def everything(user: str) -> None:
        async with queue_writes.writer(url(users, user), "q", prefix="bull", force=True) as queue:
            for step in (
                lambda: queue.put("n", {"a": 1}, {"delay": 60_000, "jobId": "d1"}),
                lambda: queue.promote("d1"),
                lambda: queue.put("n", {"a": 1}, {"jobId": "d2", "priority": 1}),
                queue.pause,
                queue.resume,
                lambda: queue.remove("d2"),
                lambda: queue.clean("completed", older_seconds=0, limit=10),
                lambda: queue.drain(delayed=True),
            ):
                if user == "ops_read":
                    with pytest.raises(Exception, match=r"(?i)permission|NOPERM|refuse|no job"):
                        await step()
                else:
                    await step()

    await everything("ops_read")
    with users.client() as client:
        assert client.dbsize() == 0
    await everything("ops_write")
    with users.client() as client:
        assert client.exists("bull:q:meta", "bull:q:id", "bull:q:events") >= 2


async def test_the_exporter_works_as_ops_read(users: RedisServer) -> None:
    """With its scripts, its streams, and the workers by their clients' names."""
    with users.client() as client:
        client.hset("bull:q:meta", "opts.maxLenEvents", 10_000)
        client.xadd("bull:q:events", {"event": "added", "jobId": "1", "name": "n"})
        client.lpush("bull:q:wait", "1")
        client.hset("bull:q:1", mapping={"name": "n", "timestamp": 1_700_000_000_000, "opts": "{}"})
    async with running(url(users, "ops_read")) as exporter:
        page = await exporter.until(lambda page: "bitloot_queue_workers" in page.values)
        assert page.get("bitloot_queue_waiting", queue="q") == 1


async def test_a_prefix_is_no_pattern(own_redis: RedisServer) -> None:
    """A star in the prefix is a star."""
    acl_kit.make_users(own_redis, "b*")
    with Redis(unix_socket_path=str(own_redis.socket), username="ops_read", password="pw") as client:
        assert client.get("b*:q:1") is None
        with pytest.raises(Exception, match=r"(?i)permission"):
            client.get("bull:q:1")


def test_the_commands_are_printed_without_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line per user, ready to paste."""
    monkeypatch.setenv("BULLMQ_PREFIX", "shop")
    lines = CliRunner().invoke(redis_acl_).stdout.splitlines()
    assert [line.split()[2] for line in lines] == ["ops_read", "ops_write"]
    assert all(" ~shop:* " in line and line.endswith(f">PASSWORD-OF-{line.split()[2].upper()}") for line in lines)
