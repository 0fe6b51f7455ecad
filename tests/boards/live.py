"""The demo with traffic, a Prometheus that scrapes it every second and evaluates our rules, and Grafana's login."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
import yaml

from demo.embedded import ROOT, Stack, stack
from demo.processes import Account, Server, free_port
from demo.session import Session, session
from tests.boards.databases import viewer

PER_SECOND = 8.0
WARM_UP = 50.0
"""Seconds of traffic, after which each kind of thing has happened."""
STEP = 5
"""Seconds between two points of a graph; a Grafana would choose more, of a longer past."""


@dataclass(frozen=True, slots=True)
class Live:
    """Everything running.

    Attributes:
        prometheus: Its URL.
        dsn: The database, as Grafana logs in.
        owner: The database, as its owner.
        started: When traffic began, Unix time.
        order: An order that has everything.
    """

    prometheus: str
    dsn: str
    owner: str
    started: float
    order: str = ""

    def instant(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query.

        Raises:
            ValueError: Prometheus refuses it.
        """
        return self._ask("query", query=expr)

    def range(self, expr: str, seconds: float = 0) -> list[dict[str, Any]]:
        """The series of a range query, since the traffic began.

        Raises:
            ValueError: Prometheus refuses it.
        """
        now = time.time()
        return self._ask(
            "query_range", query=expr, start=now - seconds if seconds else self.started, end=now, step=STEP
        )

    def _ask(self, what: str, **parameters: Any) -> list[dict[str, Any]]:
        answer = httpx.post(f"{self.prometheus}/api/v1/{what}", data=parameters, timeout=20).json()
        if answer["status"] != "success":
            raise ValueError(f"{parameters['query']}: {answer['error']}")
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result


class _Prometheus(Server):
    def __init__(self, folder: Path, target: str) -> None:
        program = shutil.which("prometheus")
        assert program, "these tests ask a real Prometheus: `apt-get install prometheus`"
        self.url = f"http://127.0.0.1:{free_port()}"
        configuration = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text("utf-8"))
        configuration["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "2s"}
        configuration["rule_files"] = [str(ROOT / "prometheus/rules/*.yml")]
        del configuration["alerting"]
        (job,) = configuration["scrape_configs"]
        job["static_configs"] = [{"targets": [target]}]
        config = folder / "boards-prometheus.yml"
        config.write_text(json.dumps(configuration), "utf-8")  # YAML, too
        super().__init__(
            "Prometheus",
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'boards-prometheus'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            log=folder / "boards-prometheus.log",
            ready=self._is_ready,
            account=Account.ours(),
        )

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/-/ready").is_success
        return False


@contextlib.contextmanager
def live() -> Iterator[Live]:
    """Start it all and wait until enough has happened."""
    with stack() as servers:
        over, found = threading.Event(), _Found()
        thread = threading.Thread(target=lambda: found.hold(lambda: asyncio.run(_run(servers, found, over))))
        thread.start()
        try:
            found.wait()
            yield found.live
        finally:
            over.set()
            thread.join()
            found.complain()


class _Found:
    """What the thread of the demo hands over, be it an error."""

    def __init__(self) -> None:
        self._there = threading.Event()
        self._error: BaseException | None = None
        self._live: Live | None = None

    def hold(self, run: Any) -> None:
        try:
            run()
        except BaseException as exc:  # noqa: BLE001 - the other thread raises it
            self._error = exc
        finally:
            self._there.set()

    def put(self, live: Live) -> None:
        self._live = live
        self._there.set()

    def wait(self) -> None:
        self._there.wait()
        self.complain()

    def complain(self) -> None:
        if self._error is not None:
            raise self._error

    @property
    def live(self) -> Live:
        assert self._live
        return self._live


async def _run(servers: Stack, found: _Found, over: threading.Event) -> None:
    async with session(servers, seed=3, per_second=PER_SECOND) as here:
        await here.live_night()
        await here.jobs.backed_up()  # a second one, to compare sizes with
        await here.start_exporter()
        with _Prometheus(servers.directory, here.exporter.url.removeprefix("http://")) as prometheus:
            started = time.time()
            dsn = viewer(servers.dsn)
            async with here.traffic.flowing():
                await _happen(here)
                await asyncio.sleep(max(0.0, started + WARM_UP - time.time()))
                live = Live(prometheus.url, dsn, servers.dsn, started)
                found.put(replace(live, order=await asyncio.to_thread(_order, live)))
                await asyncio.to_thread(over.wait)


async def _happen(here: Session) -> None:
    """What the traffic does not do by itself: jobs on demand."""
    await here.jobs.worked()
    await here.jobs.cancelled()
    await here.jobs._operator("enqueue", "flag-sync", "--wait")


def _order(live: Live) -> str:
    """An order with payments, notifications and keys."""
    with psycopg.connect(live.owner) as connection:
        row = connection.execute(
            "SELECT p.order_id::text FROM ops_view.payments p JOIN ops_view.deliveries d ON d.order_id = p.order_id "
            "ORDER BY d.created_at DESC LIMIT 1"
        ).fetchone()
    assert row, "the demo has fulfilled no order yet"
    return str(row[0])
