"""Scrapes a page again and again over one connection, as Prometheus does, and times it."""

from __future__ import annotations

import http.client
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.process import cpu_ms


@dataclass(frozen=True, slots=True)
class Scrapes:
    """Timed scrapes of one page.

    Attributes:
        p50: Median, ms.
        p95: 95th percentile, ms.
        cpu: CPU of the answering process per scrape, ms; what it does beside is in it.
        size: Bytes of the last page.
    """

    p50: float
    p95: float
    cpu: float
    size: int


class Scraper:
    """One kept connection.

    Args:
        port: On 127.0.0.1.
        gzip: Ask for a compressed page.
    """

    def __init__(self, port: int, *, gzip: bool = False) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Accept-Encoding": "gzip" if gzip else "identity"}

    def page(self) -> bytes:
        """One scrape.

        Raises:
            OSError: Nobody answers.
        """
        try:
            self._http.request("GET", "/metrics", headers=self._headers)
            return self._http.getresponse().read()
        except http.client.HTTPException as exc:
            raise OSError(str(exc)) from exc

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def measure(self, pid: int, *, seconds: float, most: int, before_each: Callable[[], None] | None = None) -> Scrapes:
        """Scrape for `seconds`, `most` times at most, three times at least."""
        times: list[float] = []
        self.page()
        body = b""
        ends = time.perf_counter() + seconds
        before = cpu_ms(pid)
        while len(times) < 3 or (len(times) < most and time.perf_counter() < ends):
            if before_each:
                before_each()
            started = time.perf_counter()
            body = self.page()
            times.append((time.perf_counter() - started) * 1000)
        cpu = (cpu_ms(pid) - before) / len(times)
        times.sort()
        return Scrapes(statistics.median(times), times[int(len(times) * 0.95)], cpu, len(body))
