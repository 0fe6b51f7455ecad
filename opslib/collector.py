"""How an exporter collects: each collector alone, under a deadline, with numbers about itself.

A collector that is dear to ask (SQL, a provider's API) refreshes on its own clock; one that is cheap (Redis) is read at
each scrape. Either way a scrape waits half a second at most, and a source that does not answer has no gauges on the
page, never old ones. What a collector has counted stays: a count is true whatever became of its source.
"""

from __future__ import annotations

import asyncio
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog

from opslib import sentry
from opslib.errors import OpsError
from opslib.exposition import Part
from opslib.spec import Gauge, Metric

log = structlog.get_logger()

UP = Gauge("ops_collector_up", "1 if the collector's source answered, 0 if not.", ("collector",))
DURATION = Gauge("ops_collector_duration_seconds", "How long the last collection took.", ("collector",))
LAST_SUCCESS = Gauge(
    "ops_collector_last_success_timestamp_seconds", "When the collector last succeeded, Unix time.", ("collector",)
)
CHECKPOINT_LAG = Gauge(
    "ops_checkpoint_lag_seconds",
    "Age of the oldest count not yet committed to the checkpoint store; the page shows committed counts only.",
    ("exporter",),
)
SELF_METRICS: tuple[Metric, ...] = (UP, DURATION, LAST_SUCCESS, CHECKPOINT_LAG)

SCRAPE_DEADLINE = 0.5  # seconds; with rendering and the network a page is out within one
_DIGITS = re.compile(r"\d+")
RETRY = 1.0  # seconds between attempts while a source is away, so that it is back on the page within five


@dataclass(frozen=True, slots=True)
class Every:
    """Refresh on a clock of one's own.

    Attributes:
        seconds: Between the end of one refresh and the start of the next.
        deadline: Seconds one refresh may take before the source counts as hung.
        retry: Seconds between attempts while the source is away.
    """

    seconds: float
    deadline: float = 10.0
    retry: float = RETRY


@dataclass(frozen=True, slots=True)
class AtScrape:
    """Read at every scrape."""


class Collector(ABC):
    """One source watched.

    Attributes:
        name: Its value of the label `collector`.
        refresh: When it is read.
        dropped: Series it has left out to keep the page small.
    """

    name: str
    refresh: Every | AtScrape
    dropped: int = 0

    @abstractmethod
    async def collect(self) -> Sequence[Part]:
        """Read the source: every gauge as it is now.

        Raises:
            OpsError: The source is away or answered nonsense; no gauge is shown.
        """

    async def probe(self) -> None:  # noqa: B027 - what is read at each scrape is its own probe
        """For a collector on its own clock: is the source there right now? Asked at every scrape.

        Raises:
            OpsError: No.
        """

    def counts(self) -> Iterable[Part]:
        """What may be shown whatever the source's state: durable counts, ages of past readings."""
        return ()

    def ready(self) -> bool:
        """Is everything it must do before its first useful page done?"""
        return True

    async def start(self) -> None:  # noqa: B027 - most have nothing beside
        """Begin whatever goes on beside collecting."""

    async def stop(self) -> None:  # noqa: B027 - most have nothing beside
        """End it, saving what is to be saved."""


class Watch:
    """A collector under isolation: whatever it does, the page comes, in time, and says so.

    Args:
        collector: The collector.
    """

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self._gauges: Sequence[Part] = ()
        self._up = False
        self._duration: float | None = None
        self._last_success: float | None = None
        self._failure: str | None = None
        self._clock: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[bool] | None = None

    async def ready(self) -> bool:
        """Has it succeeded once, and finished what comes before its first useful page?"""
        if self._last_success is None and isinstance(self.collector.refresh, AtScrape):
            await self._read_within(SCRAPE_DEADLINE)
        return self._last_success is not None and self.collector.ready()

    async def start(self) -> None:
        """Start the collector and its clock; one that cannot start is one that is down."""
        try:
            await self.collector.start()
        except Exception as exc:  # noqa: BLE001 - isolation: no collector may keep the others from starting
            self._fail(exc)
            return
        if isinstance(self.collector.refresh, Every):
            self._clock = asyncio.create_task(self._run(self.collector.refresh), name=f"clock {self.collector.name}")

    async def stop(self) -> None:
        """Stop the clock, then the collector."""
        for task in (self._clock, self._reading):
            if task is not None:
                task.cancel()
                await asyncio.wait({task}, timeout=1)
        try:
            await self.collector.stop()
        except Exception as exc:  # noqa: BLE001 - isolation: the others have something to save, too
            self._fail(exc)

    async def _run(self, clock: Every) -> None:
        while True:
            succeeded = await self._read_within(clock.deadline)
            await asyncio.sleep(clock.seconds if succeeded else min(clock.retry, clock.seconds))

    async def samples(self) -> list[Part]:
        """Its part of the page, within `SCRAPE_DEADLINE`."""
        if isinstance(self.collector.refresh, AtScrape):
            await self._read_within(SCRAPE_DEADLINE)
            up = self._up
        else:
            up = await self._probe() and self._up
        name = self.collector.name
        page: list[Part] = []
        try:
            page += self.collector.counts()
        except Exception as exc:  # noqa: BLE001 - isolation: no collector may take the page down
            self._fail(exc, keep=True)
            page, up = [], False
        page.append(UP(up, collector=name))
        if self._duration is not None:
            page.append(DURATION(self._duration, collector=name))
        if self._last_success is not None:
            page.append(LAST_SUCCESS(self._last_success, collector=name))
        if up:
            page.extend(self._gauges)
        return page

    async def _read_within(self, seconds: float) -> bool:
        """One collection; one that overruns goes on by itself and is not started a second time."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(), name=f"collect {self.collector.name}")
        done, _ = await asyncio.wait({self._reading}, timeout=seconds)
        if not done:
            self._fail(f"no answer within {seconds:g} s")
            return False
        if self._reading.cancelled():  # from within, by a library: passed on, it would end the clock without a word
            self._fail("cut off while it was asked")
            return False
        return self._reading.result()

    async def _read(self) -> bool:
        started = time.perf_counter()
        try:
            gauges = await self.collector.collect()
        except Exception as exc:  # noqa: BLE001 - isolation: no collector may take the page down
            self._fail(exc)
            return False
        finally:
            self._duration = time.perf_counter() - started
        self._gauges, self._up, self._last_success = gauges, True, time.time()
        if self._failure is not None:
            log.info("collector_recovered", collector=self.collector.name)
            self._failure = None
        return True

    async def _probe(self) -> bool:
        try:
            async with asyncio.timeout(SCRAPE_DEADLINE):
                await self.collector.probe()
        except TimeoutError:
            self._fail(f"no answer within {SCRAPE_DEADLINE:g} s", keep=True)
            return False
        except Exception as exc:  # noqa: BLE001 - isolation: no collector may take the page down
            self._fail(exc, keep=True)
            return False
        return True

    def _fail(self, why: str | Exception, *, keep: bool = False) -> None:
        """Note a failure, said once until it ends or changes in more than a number; `keep` the gauges after a probe."""
        if not keep:
            self._up, self._gauges = False, ()
        text = str(why) or type(why).__name__
        gist = _DIGITS.sub("", text)
        if gist == self._failure:
            return
        self._failure = gist
        log.warning("collector_failed", collector=self.collector.name, error=text)
        if isinstance(why, Exception):
            expected = isinstance(why, OpsError)
            sentry.capture(why, collector=self.collector.name, expected=str(expected).lower())
