"""A minute of traffic, an exporter killed in the middle, then every number on the page against the truth."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import time
from collections.abc import AsyncIterator

from rich.console import Console
from rich.table import Table

from demo import expected
from demo.compare import Difference, differences
from demo.embedded import Stack
from demo.monotonic import Monotonic
from demo.queues import CATALOG, PAYMENTS
from demo.session import Session, session
from demo.traffic import drained
from demo.truth import show

PER_SECOND = 12.0
DRAIN_SECONDS = 40.0
AGREE_SECONDS = 40.0
"""How long the page may take to catch up once all is quiet; some of its sources are read once in half a minute."""

SPEAK_SECONDS = 5.0
WIDE = 150

STEADY_SECONDS = 4.0
"""What agreed must still agree after this, more than a refresh later: nothing may be counted twice."""


async def check(stack: Stack, console: Console, *, seconds: float, seed: int) -> bool:
    """Run the check; whether everything agreed."""
    started = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/]  {text}", highlight=False, soft_wrap=True)

    async with session(stack, seed=seed, per_second=PER_SECOND, scheduler=False) as here:
        say("yesterday's orders are in the tables; the jobs of a night begin")
        await here.live_night()
        say("the night is over: backed up, proven, restored; the exporter starts")
        await here.start_exporter()
        say(f"it is ready; {seconds:g} s of traffic begin")
        async with _watched(here) as monotonic, here.traffic.flowing():
            await _events(here, seconds, say)
            say(f"{here.traffic.told} stories told; waiting for their ends")
        if not await drained(here.world.queues, DRAIN_SECONDS):
            here.world.truth.faults.append(f"the workers left {await here.world.queues.unfinished()} jobs undone")
        say("all is quiet; comparing")
        found, compared = await _settle(here, say)
        _, text = await asyncio.to_thread(here.exporter.get, "/metrics")
        faults = [*here.world.truth.faults, *monotonic.faults, *await asyncio.to_thread(_lint, text)]
        _report(console, found, faults)
        if found or faults:
            console.print(f"[bold red]{len(found)} differences, {len(faults)} faults[/]; seed {seed}")
            console.print("the exporter's last words:", here.exporter.tail(10), sep="\n", markup=False, soft_wrap=True)
            return False
        say(f"[bold green]{compared} series compared, all exact[/]; counters never went back; seed {seed}")
        return True


async def _events(here: Session, seconds: float, say: expected.Say) -> None:
    """What happens at set times while the traffic flows."""
    begun = time.monotonic()

    async def until(share: float) -> None:
        while (left := begun + share * seconds - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 10))
            if left > 10:  # noqa: PLR2004 - long enough to wonder
                say(f"{here.traffic.told} stories told")

    await until(0.2)
    say("the application is about to restart; first the exporter must have read its counters")
    await _restart_app(here)
    say("the application restarted, its own counters are gone")
    await until(0.35)
    await here.world.queues.stall()
    say(f"a worker of {CATALOG} died in the middle of a job")
    await asyncio.gather(here.jobs.reconsidered(), here.jobs.backed_up())
    say("an operator cancelled one run of a job, waited for another, and had the shop backed up once more")
    await until(0.5)
    await asyncio.to_thread(here.exporter.kill)
    await asyncio.sleep(1)
    await here.start_exporter()
    say("the exporter was killed with -9, and is back")
    await until(0.75)
    await here.world.queues.pause(PAYMENTS, 2)
    say(f"{PAYMENTS} was paused for a while")
    await until(1)


async def _restart_app(here: Session) -> None:
    """Restart the application once its counters were read: what is destroyed unread nobody can count."""
    metrics = here.world.app.metrics
    metrics.hold()
    deadline = time.monotonic() + 60
    # Whoever reads a second time has kept what it read the first time.
    while metrics.readings < 2:  # noqa: PLR2004 - see above
        if time.monotonic() > deadline:
            here.world.truth.faults.append("nobody reads the application's /metrics")
            break
        await asyncio.sleep(0.1)
    await here.world.app.restart()
    here.world.truth.count("bitloot_app_restarts_total")


@contextlib.asynccontextmanager
async def _watched(here: Session) -> AsyncIterator[Monotonic]:
    """Read the page every second for the length of the block: no counter may ever go back."""
    monotonic = Monotonic()

    async def watch() -> None:
        while True:
            page = await here.page()
            if page is not None:
                monotonic.see(page)
            await asyncio.sleep(1)

    task = asyncio.create_task(watch())
    try:
        yield monotonic
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _settle(here: Session, say: expected.Say) -> tuple[list[Difference], int]:
    """Wait until the page agrees and stays so; what differs at the end, and how many series were compared."""
    deadline = time.monotonic() + AGREE_SECONDS
    spoken = time.monotonic()
    agreed: float | None = None
    while True:
        page = await here.page()
        exact = expected.exact(here.world, here.jobs, here.backups)
        between = expected.between(here.world, here.backups)
        found = [Difference(("the page", ()), 1, None)] if page is None else differences(exact, between, page)
        now = time.monotonic()
        agreed = None if found else agreed or now
        if (agreed and now - agreed > STEADY_SECONDS) or (found and now > deadline):
            return found, len(exact) + len(between)
        if found and now - spoken > SPEAK_SECONDS:
            say(f"still waiting for {len(found)} series, {show(found[0].of)}")
            spoken = now
        await asyncio.sleep(0.5)


def _lint(page: str) -> list[str]:
    """What promtool finds wrong with the page, where there is a promtool."""
    program = shutil.which("promtool")
    if program is None:
        return []
    result = subprocess.run([program, "check", "metrics"], input=page, check=False, capture_output=True, text=True)
    return [f"promtool: {line}" for line in (result.stdout + result.stderr).splitlines()] if result.returncode else []


def _report(console: Console, found: list[Difference], faults: list[str]) -> None:
    for fault in faults:
        console.print("fault:", fault, style="red", markup=False, highlight=False, soft_wrap=True)
    if not found:
        return
    table = Table(title="What differs", title_justify="left")
    table.add_column("series", no_wrap=True)
    table.add_column("truth", justify="right", no_wrap=True)
    table.add_column("page", justify="right", no_wrap=True)
    for difference in found:
        table.add_row(show(difference.of), _number(difference.expected), _number(difference.found))
    # Whole names, however narrow the terminal or the log.
    Console(width=max(console.width, WIDE)).print(table, markup=False)


def _number(value: float | tuple[float, float] | None) -> str:
    match value:
        case None:
            return "absent"
        case (least, most):
            return f"{least:g} to {most:g}"
        case _:
            return f"{value:.12g}"
