"""`opsctl exporter run` as Prometheus meets it: a process, its page, its log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from demo.processes import free_port

WAIT = 60.0
RECOVERY = 15.0  # seconds: five are promised; a busy machine gets ten more
Page = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


class Exporter:
    """A running exporter process.

    Args:
        subjects: What it runs; none: all that have settings.
        log: Where its stderr goes.
        settings: Its environment.
    """

    def __init__(self, *subjects: str, log: Path, settings: Mapping[str, str]) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._command = [sys.executable, "-m", "opsctl.cli", "exporter", "run", *subjects]
        self._environment = {"PATH": os.environ["PATH"], "OPS_LISTEN": self.url.removeprefix("http://"), **settings}
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it and wait until it listens."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{self.url}/healthz", timeout=1)
            except httpx.TransportError:
                assert self._process.poll() is None, f"the exporter ended:\n{self.log.read_text()}"
                assert time.monotonic() < deadline, "the exporter does not listen"
                time.sleep(0.05)
            else:
                return self

    def kill(self) -> None:
        """Kill -9."""
        assert self._process
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def __enter__(self) -> Self:
        return self if self._process and self._process.poll() is None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                code = self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
                raise
            assert code == 0 or exc is not None, f"SIGTERM ended it with {code}:\n{self.log.read_text()}"

    def scrape(self) -> Page:
        """The page, which must answer 200 within a second; a busy machine gets two more."""
        started = time.monotonic()
        answer = httpx.get(f"{self.url}/metrics", timeout=20)
        took = time.monotonic() - started
        assert answer.status_code == 200
        assert took < 3, f"the page took {took:.2f} s"
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    def until(self, condition: Callable[[Page], bool], what: str, seconds: float = WAIT) -> Page:
        """Scrape until `condition` holds, each page in time."""
        deadline = time.monotonic() + seconds
        while not condition(page := self.scrape()):
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s\n{relevant(page)}"
            time.sleep(0.1)
        return page


def value(page: Page, name: str, /, **labels: str) -> float | None:
    """One series."""
    return page.get((name, tuple(sorted(labels.items()))))


def relevant(page: Page) -> str:
    """The page without process metrics, for messages."""
    return "\n".join(
        f"{name}{dict(labels)} {v}" for (name, labels), v in page.items() if name.startswith(("bitloot", "ops"))
    )
