"""Which queues there are, and which of them have workers connected."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from redis import exceptions
from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode

from opslib import redis
from opslib.areas.queues import AWAY, RIGHTS, Command, Queue, ask, away
from opslib.errors import SourceError

SCAN_COUNT = 400  # keys looked at per call: 0.3 ms of the server; 10,000 would block it for 10 ms
SCAN_PAUSE = 0.002  # seconds between two calls, so that others get their turn
SWEEP_EVERY = 2.0  # seconds between two sweeps at least ...
SWEEP_SHARE = 0.03  # ... and this share of the server's time at most, however many keys it holds
META_FIELDS = ("opts.maxLenEvents", "version", "paused", "concurrency")  # one of them is in every queue's meta


class Discovery:
    """Which queues there are: a paced SCAN for their `meta` keys, on every primary.

    Args:
        client: A connection of its own.
        prefix: BullMQ's key prefix.

    Attributes:
        queues: Every queue known, and whether it was born after the first sweep.
        sweeps: Completed so far.
    """

    def __init__(self, client: redis.Client, prefix: str) -> None:
        self.queues: dict[Queue, bool] = {}
        self.sweeps = 0
        self._client = client
        self._prefix = prefix.encode()
        self._pattern = re.sub(rb"([\\*?\[\]])", rb"\\\1", self._prefix) + b":*:meta"

    async def sweep(self) -> float:
        """Look through all keys once; forget the queues that are gone.

        Returns:
            Seconds to wait before the next sweep.

        Raises:
            SourceError: The server is away, or its ACL allows no SCAN.
        """
        found: set[Queue] = set()
        busy = 0.0
        for node in await _primaries(self._client):
            cursor: bytes | int = 0
            while True:
                started = time.perf_counter()
                scan: Command = ("SCAN", cursor, "MATCH", self._pattern, "COUNT", SCAN_COUNT, "TYPE", "hash")
                cursor, keys = await _tell(self._client, node, scan)
                busy += time.perf_counter() - started
                found |= await self._confirm({self._queue(key) for key in keys} - found)
                if int(cursor) == 0:
                    break
                await asyncio.sleep(SCAN_PAUSE)
        for queue in self.queues.keys() - found:
            del self.queues[queue]
        self.sweeps += 1
        return max(SWEEP_EVERY, busy / SWEEP_SHARE)

    def _queue(self, meta: bytes) -> Queue:
        return Queue(self._prefix, meta[len(self._prefix) + 1 : -len(b":meta")])

    async def _confirm(self, candidates: set[Queue]) -> set[Queue]:
        """Those that are queues: a repeat rule or a job may be called `meta` as well."""
        new = sorted(candidates - self.queues.keys(), key=lambda queue: queue.raw)
        answers = await ask(self._client, [(q.key(b"meta"), ("HMGET", q.key(b"meta"), *META_FIELDS)) for q in new])
        for queue, fields in zip(new, answers, strict=True):
            if isinstance(fields, list) and any(field is not None for field in fields):
                self.queues[queue] = self.sweeps > 0
        return candidates & self.queues.keys()


async def attached(client: redis.Client, queues: Iterable[Queue]) -> Mapping[Queue, int] | None:
    """Workers connected to each queue, or None where the server does not say.

    Raises:
        SourceError: The server is away.
    """
    try:
        lists = [await _tell(client, node, ("CLIENT", "LIST")) for node in await _primaries(client)]
    except SourceError as exc:
        if isinstance(exc.__cause__, exceptions.ResponseError):
            return None  # refused by the ACL, or not offered by a hosted Redis
        raise
    workers: dict[Queue, int] = {}
    counts = [_names(text) for text in lists]
    for queue in queues:
        # Node names a worker's blocking connection `prefix:base64(queue)`, Python `prefix:queue`; both add `:w:name`.
        owners = (b"%b:%b" % (queue.prefix, base64.b64encode(queue.raw)), b"%b:%b" % (queue.prefix, queue.raw))
        # A cluster client may connect to several nodes under one name; the busiest node has them all.
        workers[queue] = max(sum(count.get(owner, 0) for owner in owners) for count in counts)
    return workers


_NAME = re.compile(rb"(?:^| )name=(\S+)", re.MULTILINE)


def _names(client_list: bytes) -> dict[bytes, int]:
    counts: dict[bytes, int] = {}
    for name in _NAME.findall(client_list):
        owner = name.partition(b":w:")[0]
        counts[owner] = counts.get(owner, 0) + 1
    return counts


async def _primaries(client: redis.Client) -> Sequence[bytes | ClusterNode]:
    """Whom to ask what concerns a whole server."""
    if not isinstance(client, RedisCluster):
        return [b""]
    try:
        await client.initialize()
    except AWAY as exc:
        raise away(exc) from exc
    return client.get_primaries()


async def _tell(client: redis.Client, where: bytes | ClusterNode, command: Command) -> Any:
    (answer,) = await ask(client, [(where, command)])
    if isinstance(answer, exceptions.ResponseError):
        raise SourceError(f"Redis refuses {command[0]!r}: {answer}; its user needs {RIGHTS}") from answer
    return answer
