"""Three things break in the demo's shop; each is called for, by the real Prometheus through the real Alertmanager."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from demo.embedded import stack
from demo.processes import private_directory
from demo.queues import CATALOG
from demo.session import Session, session
from tests.acceptance.alert_kit import ROOT, Alertmanager, Prometheus, Told

STORIES = {
    "QueueNoWorker": ("page", CATALOG),
    "IpnInvalid": ("ticket", "bad signature"),
    "ProviderBalanceLow": ("ticket", "EUR left"),
}
"""What must be told, as what, and a word of its summary."""
BALANCE_SECONDS = 60
"""How often a balance is read."""


async def until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll without holding up the shop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def forging(here: Session) -> AsyncIterator[None]:
    """Somebody sends forged notifications, beside customers who pay."""

    async def forge() -> None:
        while True:
            await here.world.stories.bad_signature()
            await here.world.stories.bought()
            await asyncio.sleep(0.5)

    task = asyncio.create_task(forge())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.timeout(420)
async def test_three_stories() -> None:
    """Broken, told, restarted in the middle without a second call, mended, over."""
    with contextlib.ExitStack() as exits:
        servers = exits.enter_context(stack())
        folders = [exits.enter_context(private_directory()) for _ in range(2)]
        async with session(servers, seed=7, per_second=4, scheduler=False) as here, Told() as told:
            await here.start_exporter()
            alertmanager = exits.enter_context(Alertmanager(folders[0], told))
            exporter = here.exporter.url.removeprefix("http://")
            prometheus = exits.enter_context(Prometheus(folders[1], exporter, alertmanager.address))
            await here.world.queues.add(CATALOG, "sync-single-product", {"ms": 5})
            await until(lambda: "Watchdog" in prometheus.firing(), 20, "the rules to be evaluated")
            await asyncio.sleep(5)
            assert not STORIES.keys() & prometheus.firing(), "nothing is broken yet"

            async with forging(here):
                here.world.kinguin.balance = 50.0
                await asyncio.to_thread(here.world.queues.catalog_worker.stop)
                await here.world.queues.add(CATALOG, "sync-single-product", {"ms": 5})
                for name in STORIES:
                    await until(lambda name=name: told.of(name, "firing"), BALANCE_SECONDS + 60, f"{name} to be told")
                _well_told(told)
                await _restarts(here, prometheus, told)
            here.world.kinguin.balance = 500.0
            await asyncio.to_thread(here.world.queues.catalog_worker.start)
            for name in STORIES:
                await until(lambda name=name: told.of(name, "resolved"), BALANCE_SECONDS + 90, f"{name} to be over")
            assert not STORIES.keys() & prometheus.firing()
            _alive(told)


def _well_told(told: Told) -> None:
    """Severity, a summary with the thing in it, a runbook that is there, a board that is there."""
    boards = "".join(path.read_text("utf-8") for path in (ROOT / "grafana" / "dashboards").glob("*.json"))
    for name, (severity, word) in STORIES.items():
        alert = told.of(name, "firing")[0]
        assert alert["labels"]["severity"] == severity
        assert word in alert["annotations"]["summary"]
        runbook = ROOT / alert["annotations"]["runbook"]
        assert Path(runbook).read_text("utf-8").startswith(f"# {name}\n")
        assert f'"uid": "bitloot-{alert["annotations"]["board"].removeprefix("d/bitloot-")}"' in boards


async def _restarts(here: Session, prometheus: Prometheus, told: Told) -> None:
    """The exporter, then Prometheus restart while all three fire: nobody hears that it is over."""
    await asyncio.to_thread(here.exporter.stop)
    await here.start_exporter()
    await asyncio.to_thread(prometheus.restart)
    await until(lambda: prometheus.firing() >= STORIES.keys(), BALANCE_SECONDS + 30, "all three to fire as before")
    over = {name for name in STORIES if told.of(name, "resolved")}
    assert not over, f"they flap: {over}"


def _alive(told: Told) -> None:
    """The dead man's switch came again and again, through the restarts."""
    gaps = [after - before for before, after in zip(told.beats, told.beats[1:], strict=False)]
    assert len(gaps) > 10
    assert max(gaps) < 15, "its receiver would have called"
