"""The queues of Redis, for a report: how they stand, and which jobs failed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opslib import redis
from opslib.areas import queue_jobs
from opslib.areas.queue_discovery import Discovery, attached
from opslib.areas.queue_jobs import JobView
from opslib.areas.queue_overview import Overview, overviews
from opslib.areas.queues import connect
from opslib.settings import Settings

TIMEOUT = 5.0
"""Seconds for one answer."""
NEWEST = 300
"""Failed jobs looked at in each queue."""


@dataclass(frozen=True, slots=True)
class Queues:
    """As they stand.

    Attributes:
        overviews: Each queue.
        failed: Its newest failed jobs, newest first.
    """

    overviews: Sequence[Overview]
    failed: Mapping[str, Sequence[JobView]]


def read(settings: Settings) -> Queues:
    """Ask.

    Raises:
        ConfigError: REDIS_URL is not set.
        SourceError: The server is away or refuses.
    """
    return asyncio.run(_read(settings))


async def _read(settings: Settings) -> Queues:
    client = connect(settings.reveal("REDIS_URL"), name="opsctl-report", timeout=TIMEOUT)
    try:
        discovery = Discovery(client, settings.bullmq_prefix)
        await discovery.sweep()
        every = sorted(discovery.queues)
        found = await overviews(client, every, await attached(client, every))
        failed = {}
        for queue in every:
            ids = await queue_jobs.ids(client, queue, "failed", NEWEST)
            failed[queue.name] = await queue_jobs.jobs(client, queue, "failed", ids)
        return Queues(found, failed)
    finally:
        await redis.close(client)
