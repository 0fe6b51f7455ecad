"""The commands somebody looks up things with, on a demo that has been running, each a process from start to end."""

from __future__ import annotations

import asyncio
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from demo.embedded import DATABASE, OPERATOR, Stack, environment, stack
from demo.session import FLAGS, session
from tests.bench.line import Line

WARM_SECONDS = 20
"""Of traffic before the first is measured; the exporter and the jobs go on meanwhile."""
ROUNDS = 9
LISTS = (
    *("orders list", "payments list", "webhooks list", "reservations list", "users list", "sessions list"),
    *("app-audit list", "queues list", "jobs list", "jobs history", "backups list", "flags list", "audit list"),
    *("operators list", "orders list --json"),
)
LIBRARIES = "import click, psycopg, pydantic"
"""Of any command that asks Postgres."""
BACKUP = ("jobs", "exec", "backup-database", "--reason", "bench", "--yes")


def run() -> Iterator[Line]:
    """Medians of alternating runs after one of each; CPU against what loading the libraries alone takes, in turn."""
    with stack() as servers:
        (_, took, bare), *lists = asyncio.run(_measured(servers))
        yield Line(f"python -c '{LIBRARIES}'", took, "target", 400, bound=1)
        for words, took, cpu in lists:
            yield Line(f"opsctl {words}", took, "target", 400, bound=1)
            yield Line("its CPU", cpu, "those imports'", bare, bound=3)


async def _measured(servers: Stack) -> list[tuple[str, float, float]]:
    async with session(servers, seed=1, per_second=4) as here:
        await here.start_exporter()
        await asyncio.to_thread(here.jobs.start)
        async with here.traffic.flowing():
            await asyncio.sleep(WARM_SECONDS)
        settings = environment(
            {
                "DATABASE_URL": servers.postgres.dsn(DATABASE, OPERATOR),
                "REDIS_URL": servers.redis.url,
                "APP_BASE_URL": here.world.app.url,
                "OPS_FLAGS_FILE": str(FLAGS),
                "R2_ENDPOINT": servers.s3.endpoint,
                "R2_BUCKET": "bitloot",
                "R2_ACCESS_KEY_ID": servers.s3.access_key_id,
                "R2_SECRET_ACCESS_KEY": servers.s3.secret_access_key,
            }
        )
        # As the owner: the backup reads every table.
        await asyncio.to_thread(_timed, " ".join(BACKUP), {**settings, "DATABASE_URL": servers.dsn})
        return await asyncio.to_thread(_rounds, settings)


def _rounds(settings: Mapping[str, str]) -> list[tuple[str, float, float]]:
    times: dict[str, list[tuple[float, float]]] = {words: [] for words in (LIBRARIES, *LISTS)}
    for number in range(ROUNDS + 1):
        for words, kept in times.items():
            took = _timed(words, settings)
            if number:
                kept.append(took)
    return [
        (words, statistics.median(wall for wall, _ in each), statistics.median(cpu for _, cpu in each))
        for words, each in times.items()
    ]


def _timed(words: str, settings: Mapping[str, str]) -> tuple[float, float]:
    """Wall and CPU milliseconds."""
    if words == LIBRARIES:
        command = [sys.executable, "-c", words]
    else:
        command = [str(Path(sys.executable).parent / "opsctl"), *words.split()]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=dict(settings))
    took, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took * 1000, cpu * 1000
