"""A peer, in a process of its own: the official Python client, `getJobCounts` of each queue in turn.

python -m tests.bench.peer_bullmq REDIS_URL PORT QUEUES
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web
from bullmq import Queue
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from redis.asyncio import Redis


async def serve(url: str, port: int, count: int) -> None:
    """Run until killed."""
    connection = Redis.from_url(url, decode_responses=True)  # given none, each queue would take its own
    queues = [Queue(f"queue-{number}", {"connection": connection}) for number in range(count)]
    registry = CollectorRegistry()
    gauge = Gauge("bullmq_job_count", "Jobs by state.", ("queue", "state"), registry=registry)

    async def metrics(_: web.Request) -> web.Response:
        for queue in queues:
            for state, jobs in (await queue.getJobCounts()).items():
                gauge.labels(queue.name, state).set(jobs)
        return web.Response(body=generate_latest(registry))

    routes = web.Application()
    routes.add_routes([web.get("/metrics", metrics)])
    runner = web.AppRunner(routes, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
