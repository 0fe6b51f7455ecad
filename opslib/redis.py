"""Redis clients by URL: one server (tcp, TLS, unix socket), a cluster, or a master found through sentinels.

redis://user:password@host:6379/0            rediss:// for TLS
unix:///run/redis/redis.sock?db=0
redis+cluster://host:7000,other:7000         rediss+cluster:// for TLS; any node finds the others
redis+sentinel://s1:26379,s2:26379/mymaster  rediss+sentinel:// for TLS; /mymaster/2 for database 2
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff

from opslib.errors import ConfigError

Client = Redis | RedisCluster


def client(url: str, *, name: str, timeout: float, max_connections: int = 1, text: bool = False) -> Client:
    """A client that connects at its first command.

    Args:
        url: See the module's docstring.
        name: How it shows in CLIENT LIST.
        timeout: Seconds for connecting and for each answer. There is no retry: the caller's clock is the retry.
        max_connections: At most so many; further callers wait for one.
        text: Answers are text, not bytes.

    Raises:
        ConfigError: The URL names no way to a server.
    """
    common: dict[str, Any] = {
        "client_name": name,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "decode_responses": text,
    }
    scheme, _, topology = urlsplit(url).scheme.partition("+")
    try:
        if topology == "cluster":
            return _of_cluster(url, common=common, max_connections=max_connections)
        if topology == "sentinel":
            return _through_sentinel(url, tls=scheme == "rediss", common=common, max_connections=max_connections)
        pool = BlockingConnectionPool.from_url(url, **common, max_connections=max_connections, timeout=timeout)
        pool.make_connection()  # type: ignore[no-untyped-call] # connects to nothing yet; an option nobody knows is refused here
    except (TypeError, ValueError):  # its text may quote the URL
        raise ConfigError(
            "REDIS_URL: a port, a database number or an option in it is wrong; write it like "
            "redis://host:6379/0, unix:///path/redis.sock?db=0, redis+cluster://host:7000,other:7000 "
            "or redis+sentinel://host:26379,other:26379/mymaster/0"
        ) from None
    return Redis.from_pool(pool)


async def close(client: Client) -> None:
    """Let go of its connections, of those to sentinels too."""
    if isinstance(client, Redis) and isinstance(client.connection_pool, SentinelConnectionPool):
        for sentinel in client.connection_pool.sentinel_manager.sentinels:
            await sentinel.aclose()
    await client.aclose()


def _through_sentinel(url: str, *, tls: bool, common: dict[str, Any], max_connections: int) -> Redis:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ConfigError("REDIS_URL: a sentinel URL ends in the master's name: redis+sentinel://host:26379/mymaster")
    username, _, password = credentials.partition(":")
    sentinel = Sentinel(_addresses(hosts.split(","), 26379), sentinel_kwargs=common, ssl=tls)  # type: ignore[no-untyped-call]
    master: Redis = sentinel.master_for(
        service,
        connection_pool_class=SentinelConnectionPool,
        db=int(db or 0),
        username=unquote(username) or None,
        password=unquote(password) or None,
        max_connections=max_connections,
        ssl=tls,
        **common,
    )
    return master


def _of_cluster(url: str, *, common: dict[str, Any], max_connections: int) -> RedisCluster:
    parts = urlsplit(url.replace("+cluster", "", 1))
    credentials, at, hosts = parts.netloc.rpartition("@")
    first, *others = hosts.split(",")
    nodes = [ClusterNode(host, port) for host, port in _addresses(others, 6379)]
    return RedisCluster.from_url(
        parts._replace(netloc=f"{credentials}{at}{first}").geturl(),
        **common,
        startup_nodes=nodes,
        max_connections=max_connections,
    )


def _addresses(hosts: Iterable[str], port: int) -> list[tuple[str, int]]:
    return [(host or "localhost", int(own or port)) for host, _, own in (each.partition(":") for each in hosts)]
