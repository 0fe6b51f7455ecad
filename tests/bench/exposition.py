"""Writing pages: 10,000 series against the reference writer, and 100,000 as one scrape after another writes them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from opslib.exposition import Block, Family, Page
from opslib.packed import gzipped, plain
from opslib.spec import Counter
from opslib.spec import Gauge as OurGauge
from opslib.tally import Tally
from tests.bench.line import Line

SERIES = 10_000
MANY = 100_000
FAMILIES = 10
ROUNDS = 9


def _median(call: Callable[[], object], before: Callable[[], None] = lambda: None) -> float:
    times = []
    call()
    for _ in range(ROUNDS):
        before()
        started = time.process_time()
        call()
        times.append((time.process_time() - started) * 1000)
    return statistics.median(times)


def run() -> Iterator[Line]:
    """CPU milliseconds for one page."""
    yield _against_the_reference()
    for kind, first in (("whole", 0), ("fractional", 0.123)):
        gauges = _gauges(first)
        yield Line(
            f"page of {MANY} gauges, every value new, {kind}", _median(lambda g=gauges: plain(g())), "target", 50, 1
        )
    for share in (0, 0.01, 0.1):
        tally, move = _counters(share)
        what = f"page of {MANY} counters, {share:.0%} of them moved"
        yield Line(what, _median(lambda tally=tally: plain(tally.blocks()), move), "target", 50, 1)
        yield Line(f"{what}, gzip", _median(lambda tally=tally: gzipped(tally.blocks()), move), "target", 50, 1)


def _gauges(first: float) -> Callable[[], list[Block]]:
    """Gauges with one label, as the queues have them; each page shows other values."""
    labels = [f"queue-{number}" for number in range(MANY // FAMILIES)]
    families = [Family(OurGauge(f"bench_jobs_{number}", "Jobs.", ("queue",))) for number in range(FAMILIES)]
    values = [first + number for number in range(len(labels))]

    def page() -> list[Block]:
        values.append(values.pop(0))
        return [family.block(labels, values) for family in families]

    return page


def _counters(share: float) -> tuple[Tally, Callable[[], None]]:
    """Counters of an exporter that keeps them, and what moves that share of them, spread evenly."""
    metrics = [Counter(f"bench_jobs_{number}_total", "Jobs.", ("queue", "name")) for number in range(FAMILIES)]
    tally = Tally(metrics, durable_only=False)
    series = [(metric, f"queue-{n // 10}", f"name-{n % 10}") for metric in metrics for n in range(MANY // FAMILIES)]
    for metric, *labels in series:
        tally.add(metric, *labels)
    moving = series[:: int(1 / share)] if share else []

    def move() -> None:
        for metric, *labels in moving:
            tally.add(metric, *labels)

    return tally, move


def _against_the_reference() -> Line:
    registry = CollectorRegistry()
    reference = Gauge("bench_jobs", "Jobs.", ("queue", "state"), registry=registry)
    ours = OurGauge("bench_jobs", "Jobs.", ("queue", "state"))
    samples = []
    for number in range(SERIES):
        queue, state = f"queue-{number // 10}", f"state-{number % 10}"
        reference.labels(queue, state).set(number)
        samples.append(ours(number, queue=queue, state=state))

    def render() -> bytes:
        page = Page()
        page.add(samples)
        return plain(page.pieces())

    assert render().strip().splitlines() == generate_latest(registry).replace(b".0\n", b"\n").strip().splitlines()
    return Line(
        f"page of {SERIES} series",
        _median(render),
        "prometheus_client",
        _median(lambda: generate_latest(registry)),
        0.8,
    )
