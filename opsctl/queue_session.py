"""The queues of a Redis, for as long as a command needs them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from opslib import log, redis
from opslib.areas.queue_discovery import Discovery
from opslib.areas.queues import Queue, connect
from opslib.errors import NotFoundError
from opslib.settings import Settings

TIMEOUT = 5.0  # seconds for an answer: somebody waits


@dataclass(frozen=True, slots=True)
class Redis:
    """Where the queues are.

    Attributes:
        client: A connection for reading.
        queues: All of them, by name.
    """

    client: redis.Client
    queues: Mapping[str, Queue]

    def queue(self, name: str) -> Queue:
        """The queue of that name.

        Raises:
            NotFoundError: There is none.
        """
        if name not in self.queues:
            raise NotFoundError(f"there is no queue {name}; there are: {', '.join(self.queues) or 'none'}")
        return self.queues[name]


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Redis]:
    """The queues REDIS_URL names."""
    log.configure(settings.model_copy(update={"ops_log_level": "warning"}))  # how Redis is read is an exporter's news
    client = connect(settings.reveal("REDIS_URL"), name="opsctl", timeout=TIMEOUT)
    try:
        discovery = Discovery(client, settings.bullmq_prefix)
        await discovery.sweep()
        yield Redis(client, {queue.name: queue for queue in sorted(discovery.queues)})
    finally:
        await redis.close(client)
