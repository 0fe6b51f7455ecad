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

from demo.embedded import Stack, environment, stack
from demo.session import session
from tests.bench.line import Line

WARM_SECONDS = 20
"""Of traffic before the first is measured; the exporter and the jobs go on meanwhile."""
ROUNDS = 9
LISTS = (
    *("orders list", "payments list", "webhooks list", "reservations list", "users list", "sessions list"),
    *("app-audit list", "queues list", "jobs list", "jobs history", "backups list", "flags list", "audit list"),
    *("operators list", "balances list", "orders list --json"),
)
LIBRARIES = "import click, psycopg, pydantic"
"""Of any command that asks Postgres."""


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
        await here.live_night()
        await here.start_exporter()
        async with here.traffic.flowing():
            await asyncio.sleep(WARM_SECONDS)
        return await asyncio.to_thread(_rounds, environment(here.operator))


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
