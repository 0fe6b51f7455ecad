"""Scripts that watch their time: every key is read once, however little a script gets to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis import Redis

from opslib import redis as clients
from opslib.areas import timed_script
from opslib.areas.queues import connect

KEYS = [(b"key-%d" % number, number) for number in range(100)]
ECHO = "local function read(key) return redis.call('GET', key) end" + timed_script.TIMED
SLOW = (
    "local function read(key) local n = 0 for i = 1, 20000 do n = n + i % 7 end return redis.call('GET', key) end"
    + timed_script.TIMED
)
# As from Redis 7.4 on: `os.clock` is there, in seconds of the server's work.
CLOCK = """
local function rawget()
  return { clock = function() local now = redis.call('TIME') return now[1] + now[2] / 1000000 end }
end
"""
FROZEN = "local function rawget() return { clock = function() return 1 end } end "  # as TIME is in Redis 7.2


@pytest.fixture
def server(redis: str) -> Iterator[Redis]:
    """The shared Redis 7, with a value under every key; what it logs of its users is forgotten."""
    with Redis.from_url(redis) as made:
        made.mset(dict(KEYS))
        made.config_resetstat()
        yield made


@pytest.fixture
async def client(redis: str) -> AsyncIterator[clients.Client]:
    """A client of it."""
    made = connect(redis, name="test", timeout=10)
    yield made
    await clients.close(made)


async def read(client: clients.Client, script: str, groups: list[Any] | None = None, most: int = 40) -> list[Any]:
    """Every key's number and value."""
    return (await read_and_time(client, script, groups, most))[0]


async def read_and_time(
    client: clients.Client, script: str, groups: list[Any] | None = None, most: int = 40
) -> tuple[list[Any], Any]:
    """The same, and the server's time."""
    found: list[Any] = []
    time = await timed_script.run(
        client, script, groups or [KEYS], lambda number, value: found.append((number, int(value))), most=most
    )
    return sorted(found), time


def commands(server: Redis) -> int:
    """Scripts run since the last time."""
    stats = server.info("commandstats")
    server.config_resetstat()
    return sum(stats.get(f"cmdstat_{verb}", {}).get("calls", 0) for verb in ("eval_ro", "evalsha_ro"))


ALL = [(number, number) for _, number in KEYS]


@pytest.mark.parametrize("limit", [1, 370, 10**9])
async def test_all_keys(server: Redis, client: clients.Client, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Whatever the limit, every key is read once; a script reads four at least, and most at once when time is ample."""
    monkeypatch.setattr(timed_script, "LIMIT", limit)
    for _ in range(2):
        assert await read(client, ECHO) == ALL
    scripts = commands(server)
    if limit == 1:
        assert scripts in range(50, 53), "four keys each; and perhaps two more to load it"
    elif limit == 10**9:
        assert scripts in range(6, 9), "40, 40 and 20"


async def test_a_slow_key_makes_more_scripts(
    server: Redis, client: clients.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each key takes 0.1 ms at the very least: where four fit nobody reads forty."""
    monkeypatch.setattr(timed_script, "LIMIT", 400)
    for script in (SLOW, CLOCK + SLOW):
        assert await read(client, script) == ALL
        assert commands(server) >= 20


async def test_a_clock_in_seconds(server: Redis, client: clients.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """`os.clock` counts seconds: with a limit of minutes no script stops early."""
    monkeypatch.setattr(timed_script, "LIMIT", 10**9)
    assert await read(client, CLOCK + ECHO) == ALL
    assert commands(server) in range(3, 6)


async def test_where_nobody_tells_the_time(server: Redis, client: clients.Client, redis: str) -> None:
    """Time that stands still, or is refused: a fixed number of keys per script; the page uses its own clock then."""
    assert await read(client, FROZEN + ECHO) == ALL
    assert commands(server) in range(6, 9), "18 keys each"
    server.acl_setuser("timeless", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-time"])
    refused = connect(redis, name="test", timeout=10)
    try:
        for _ in range(2):
            await refused.execute_command("AUTH", "timeless", "any")
            assert await read_and_time(refused, ECHO) == (ALL, None)
            assert commands(server) in range(6, 9)
    finally:
        await clients.close(refused)
        server.acl_deluser("timeless")


async def test_a_server_that_forgot_the_script(server: Redis, client: clients.Client) -> None:
    """Sent again, once; afterwards it is known."""
    for _ in range(2):
        server.script_flush()
        assert await read(client, ECHO) == ALL
    server.config_resetstat()
    assert await read(client, ECHO) == ALL
    assert server.info("commandstats").get("cmdstat_eval_ro") is None


@pytest.mark.usefixtures("server")
async def test_small_groups_go_together(client: clients.Client) -> None:
    """As in a cluster, where a group is a slot: a command each, and many in one turn."""
    groups = [KEYS[i : i + 3] for i in range(0, 60, 3)] + [KEYS[60:]]
    for _ in range(2):
        assert await read(client, ECHO, groups) == ALL


@pytest.mark.usefixtures("server")
async def test_a_refusal(client: clients.Client) -> None:
    """A script the server does not run says so; the connection is good for the next one."""
    with pytest.raises(timed_script.NoScriptsError):
        await read(client, "this is no script")
    assert await read(client, ECHO) == ALL
