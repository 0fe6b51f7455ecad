"""Rendering 10,000 series against the reference writer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from opslib.exposition import Page
from opslib.spec import Gauge as OurGauge
from tests.bench.line import Line

SERIES = 10_000
ROUNDS = 9


def _median(call: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        started = time.process_time()
        call()
        times.append((time.process_time() - started) * 1000)
    return statistics.median(times)


def run() -> Iterator[Line]:
    """CPU milliseconds for one page."""
    registry = CollectorRegistry()
    reference = Gauge("bench_jobs", "Jobs.", ("queue", "state"), registry=registry)
    ours = OurGauge("bench_jobs", "Jobs.", ("queue", "state"))
    samples = []
    for number in range(SERIES):
        queue, state = f"queue-{number // 10}", f"state-{number % 10}"
        reference.labels(queue, state).set(number)
        samples.append(ours(number, queue=queue, state=state))

    def render() -> str:
        page = Page()
        page.add(samples)
        return page.render()

    assert (
        render().strip().splitlines() == generate_latest(registry).decode().replace(".0\n", "\n").strip().splitlines()
    )
    yield Line(
        f"page of {SERIES} series",
        _median(render),
        "prometheus_client",
        _median(lambda: generate_latest(registry)),
        0.8,
    )
