"""One collector's trouble is its own: the page comes in time and says what is down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from opslib import collector as module
from opslib.collector import AtScrape, Collector, Every, Watch
from opslib.errors import SourceError
from opslib.spec import Counter, Gauge, Sample

VALUE = Gauge("test_value", "A value.")
COUNT = Counter("test_count_total", "A count.")


class Source(Collector):
    """A source that does as it is told."""

    name = "source"

    def __init__(self, refresh: Every | AtScrape) -> None:
        self.refresh = refresh
        self.failure: BaseException | None = None
        self.miscount: Exception | None = None
        self.hung: asyncio.Event | None = None
        self.probe_too = True
        self.reads = 0

    async def _answer(self) -> None:
        if self.hung is not None:
            await self.hung.wait()
        if self.failure is not None:
            raise self.failure

    async def collect(self) -> Sequence[Sample]:
        """One gauge."""
        self.reads += 1
        await self._answer()
        return [VALUE(self.reads)]

    async def probe(self) -> None:
        """As `collect`, unless told otherwise."""
        if self.probe_too:
            await self._answer()

    def counts(self) -> Iterable[Sample]:
        """One count."""
        if self.miscount is not None:
            raise self.miscount
        return [COUNT(7)]


@asynccontextmanager
async def watched(source: Source) -> AsyncIterator[Watch]:
    """Watch `source` while the block runs."""
    watch = Watch(source)
    await watch.start()
    try:
        yield watch
    finally:
        await watch.stop()


async def page(watch: Watch) -> dict[str, float]:
    """One scrape's values by name, within a second; a busy machine gets two more."""
    started = time.monotonic()
    samples = await watch.samples()
    assert time.monotonic() - started < 3
    return {sample.metric.name: sample.value[0] for sample in samples}


async def settle(watch: Watch, *, up: float) -> dict[str, float]:
    """Scrape until `up`: within five seconds, and a busy machine gets ten more."""
    async with asyncio.timeout(15):
        while (seen := await page(watch))["ops_collector_up"] != up:  # noqa: ASYNC110 - a page has no event
            await asyncio.sleep(0.02)
    return seen


CLOCKS = pytest.mark.parametrize("refresh", [Every(0.05), AtScrape()], ids=["clock", "scrape"])


@CLOCKS
async def test_a_failing_source_loses_its_gauges_keeps_its_counts_and_comes_back(refresh: Every | AtScrape) -> None:
    """Down is said at the next scrape; the gauge is gone, the count is not; it recovers in seconds."""
    source = Source(refresh)
    async with watched(source) as watch:
        assert (await settle(watch, up=1))["test_value"] >= 1
        source.failure = SourceError("away")
        down = await page(watch)
        assert down["ops_collector_up"] == 0
        assert "test_value" not in down
        assert down["test_count_total"] == 7
        source.failure = None
        assert "test_value" in await settle(watch, up=1)


@CLOCKS
async def test_a_hung_source_is_waited_for_half_a_second_and_never_asked_twice(refresh: Every | AtScrape) -> None:
    """However often the page is read meanwhile, one question is under way."""
    source = Source(refresh)
    async with watched(source) as watch:
        await settle(watch, up=1)
        reads, source.hung = source.reads, asyncio.Event()
        for _ in range(4):
            down = await page(watch)
            assert down["ops_collector_up"] == 0
            assert "test_value" not in down
        assert source.reads <= reads + 1
        source.hung.set()
        source.hung = None
        await settle(watch, up=1)


async def test_a_collector_tells_how_long_it_took_and_when_it_last_succeeded() -> None:
    """Nothing before the first answer; a failure takes time too, and does not move the last success."""
    succeeded = "ops_collector_last_success_timestamp_seconds"
    source = Source(AtScrape())
    watch = Watch(source)
    source.failure = SourceError("away")
    assert succeeded not in await page(watch)
    source.failure = None
    before = time.time()
    good = await page(watch)
    assert before <= good[succeeded] <= time.time()
    assert 0 <= good["ops_collector_duration_seconds"] < 3
    source.failure = SourceError("away")
    failed = await page(watch)
    assert (
        failed["ops_collector_last_success_timestamp_seconds"] == good["ops_collector_last_success_timestamp_seconds"]
    )
    assert "ops_collector_duration_seconds" in failed


async def test_an_unexpected_error_is_isolated_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in a collector is reported once and takes nothing else down."""
    reported: list[BaseException] = []
    monkeypatch.setattr(module.sentry, "capture", lambda exc, **_: reported.append(exc))
    source = Source(AtScrape())
    async with watched(source) as watch:
        source.failure = ZeroDivisionError("bug")
        assert (await page(watch))["ops_collector_up"] == 0
        assert (await page(watch))["ops_collector_up"] == 0
        assert [type(exc) for exc in reported] == [ZeroDivisionError]


@CLOCKS
async def test_a_reading_cut_off_from_within_does_not_end_the_watch(refresh: Every | AtScrape) -> None:
    """A library that cancels what it was asked stops neither the clock nor the page."""
    source = Source(refresh)
    async with watched(source) as watch:
        await settle(watch, up=1)
        source.failure = asyncio.CancelledError()
        source.probe_too = False
        assert "test_value" not in await settle(watch, up=0)
        source.failure = None
        assert "test_value" in await settle(watch, up=1)


@CLOCKS
async def test_counts_that_cannot_be_told_take_nothing_else_down(refresh: Every | AtScrape) -> None:
    """The page comes, says that this collector is down, and has its counts again when they can be told."""
    source = Source(refresh)
    async with watched(source) as watch:
        await settle(watch, up=1)
        source.miscount = KeyError("bug")
        down = await page(watch)
        assert down["ops_collector_up"] == 0
        assert not {"test_value", "test_count_total"} & down.keys()
        source.miscount = None
        assert (await settle(watch, up=1))["test_count_total"] == 7


class Stubborn(Source):
    """A source that can neither be made ready nor let go of."""

    async def start(self) -> None:
        """Fail."""
        raise SourceError("no way in")

    async def stop(self) -> None:
        """Fail."""
        raise SourceError("no way out")


async def test_one_that_cannot_start_or_stop_is_told_and_keeps_nobody_else_from_it() -> None:
    """It is down, not a reason to have no exporter; what it could not save is not passed over."""
    watch = Watch(Stubborn(Every(0.05)))
    with capture_logs() as logs:
        await watch.start()
        down = await page(watch)
        assert (down["ops_collector_up"], "test_value" in down) == (0, False)
        await watch.stop()
    assert [line["error"] for line in logs] == ["no way in", "no way out"]


async def test_ready_only_after_the_first_success() -> None:
    """A page that has never been good is not ready."""
    source = Source(AtScrape())
    source.failure = SourceError("away")
    async with watched(source) as watch:
        assert not await watch.ready()
        source.failure = None
        assert await watch.ready(), "without anybody having scraped"
