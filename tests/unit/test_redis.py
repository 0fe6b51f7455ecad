"""A Redis URL names its servers, or is refused as a setting, never as a traceback."""

from __future__ import annotations

import pytest
from redis.asyncio import RedisCluster

from opslib import redis
from opslib.errors import ConfigError


def test_a_cluster_may_be_entered_at_any_of_its_nodes() -> None:
    """All of those named, with the user and password of the URL."""
    client = redis.client("rediss+cluster://user:p%40ss@a:7000,b:7001,c", name="test", timeout=1)
    assert isinstance(client, RedisCluster)
    assert sorted((node.host, node.port) for node in client.startup_nodes) == [("a", 7000), ("b", 7001), ("c", 6379)]
    assert (client.connection_kwargs["username"], client.connection_kwargs["password"]) == ("user", "p@ss")


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://:hunter2@a:7000,b:x",
        "redis+sentinel://:hunter2@a:x,b:1/mymaster",
        "redis+sentinel://:hunter2@a:1/mymaster/x",
        "redis+sentinel://:hunter2@a:1",
        "redis://:hunter2@a:1?db=x",
        "redis://:hunter2@a:1?no_such_option=1",
        "unix:///tmp/redis.sock?db=x&password=hunter2",
    ],
)
def test_what_cannot_be_used_is_a_setting_to_mend(url: str) -> None:
    """Said with the ways to write it, and without what was written."""
    with pytest.raises(ConfigError, match=r"^REDIS_URL: ") as caught:
        redis.client(url, name="test", timeout=1)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
