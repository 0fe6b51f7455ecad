"""`opsctl jobs watch`: what happens to runs, as it happens."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

import click

from opsctl.follow import describe
from opsctl.kinds import reads
from opsctl.output import Output, iso, printed_json, to_json
from opslib import settings
from opslib.areas.run_changes import Change, Changes, Line

COLOURS = {"started": "cyan", "completed": "green", "cancelling": "yellow"}


@click.command()
@printed_json
@reads
def watch(output: Output) -> None:
    """Show runs being queued, started, getting on, completed, as it happens, until Ctrl-C.

    With --json one object a line. A connection that is lost comes back, and what happened meanwhile is told then.
    """
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_watch(settings.load().require_ops(), output))


async def _watch(dsn: str, output: Output) -> None:
    async with contextlib.aclosing(Changes(dsn).follow()) as changes:
        async for change in changes:
            now = datetime.now(UTC)
            match change:
                case Line(lost=None):
                    click.echo(f"{now:%H:%M:%S}  the database is back", err=True)
                case Line(lost=why):
                    click.echo(f"{now:%H:%M:%S}  {why}; trying again", err=True)
                case Change() if not output.for_people:
                    click.echo(to_json({"at": iso(now), "event": change.event, **change.run}, indent=None))
                case Change():
                    colour = "red" if change.run["state"] == "FAILED" else COLOURS.get(change.event)
                    said = click.style(describe(change), fg=colour)
                    click.echo(f"{now:%H:%M:%S}  {change.run['id']:>8}  {change.run['job']:<20}  {said}")
