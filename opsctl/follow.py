"""One run while it goes on: a line that moves on a terminal, nothing elsewhere; then how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Mapping
from typing import Any

import click

from opsctl.output import words
from opslib.areas.run_changes import ENDED, Change, Changes, Line

Row = Mapping[str, Any]

_UNITS = ("B", "kB", "MB", "GB", "TB")
_STEP = 1000.0


def wait(dsn: str, run: int) -> Row:
    """Follow a run to its end; the run then. An outage of the database is waited out."""
    return asyncio.run(_wait(dsn, run))


async def _wait(dsn: str, run: int) -> Row:
    shown = _Moving()
    last: Row = {}
    try:
        async with contextlib.aclosing(Changes(dsn, run).follow()) as changes:
            async for change in changes:
                if isinstance(change, Line):
                    shown.say(f"the database is away, the run may go on: {change.lost}" if change.lost else "")
                    continue
                last = change.run
                if last["state"] in ENDED:
                    return last
                shown.say(describe(change))
    finally:
        shown.end()
    return last


class Beside:
    """Shows how far a run is while this thread works on it; on a terminal only.

    Args:
        dsn: The ops database.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, run: int) -> None:
        """The run has its number."""
        click.echo(f"run {run}", err=True)
        if sys.stderr.isatty():
            self._thread = threading.Thread(target=lambda: asyncio.run(self._show(run)), name="progress", daemon=True)
            self._thread.start()

    async def _show(self, run: int) -> None:
        following = asyncio.ensure_future(_wait(self._dsn, run))
        while not self._over.is_set() and not following.done():
            await asyncio.wait({following}, timeout=0.2)
        following.cancel()
        await asyncio.wait({following})

    def stop(self) -> None:
        """It is over."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()


class _Moving:
    """The moving line, on standard error: standard output is the result's."""

    def __init__(self) -> None:
        self._there = False

    def say(self, text: str) -> None:
        """Show this instead."""
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)
            self._there = bool(text)

    def end(self) -> None:
        """Leave what is shown, and the line."""
        if self._there:
            click.echo(err=True)


def describe(change: Change) -> str:
    """What happened, without time and without the run's number."""
    run = change.run
    match change.event:
        case "completed":
            took = "" if run["duration"] is None else f" after {run['duration']:.1f} s"
            why = f": {run['error']}" if run["error"] else ""
            return words(f"{run['state']}{took}{why}")
        case "progress":
            return words(f"progress {progress(run['progress'])}")
        case "cancelling":
            return words(f"asked to stop by {run['cancel_requested_by']}")
        case "started":
            return words(f"started on {run['node']}, attempt {run['attempt']}")
        case _:
            again = f" again, {run['error']}" if run["attempt"] else ""
            when = "" if run["retry_at"] is None else f"; next attempt {words(run['retry_at'])}"
            return words(f"queued{again}{when}")


def progress(told: Mapping[str, Any] | None) -> str:
    """How far a run is: `45 % of 1.2 GB, table orders`."""
    if not told:
        return ""
    done, total, unit, note = (told.get(name) for name in ("done", "total", "unit", "note"))
    text = _amount(done, unit) if done else ""
    if total:
        text = f"{(done or 0) / total:.0%} of {_amount(total, unit)}"
    return ", ".join(part for part in (text, note) if part)


def _amount(value: float, unit: str | None) -> str:
    if unit != "bytes":
        return f"{value:,g} {unit or ''}".strip()
    for name in _UNITS:
        if value < _STEP or name == _UNITS[-1]:
            break
        value /= _STEP
    return f"{value:.3g} {name}"
