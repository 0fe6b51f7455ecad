"""`opsctl queues`: what lies in BullMQ's queues, who works at it, and what failed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import click

from opsctl.actions import queues as actions
from opsctl.kinds import reads
from opsctl.output import Column, Output, console, printed, printed_json, tint, words
from opsctl.queue_session import Redis, opened
from opslib import settings
from opslib.areas import queue_jobs
from opslib.areas.queue_discovery import attached
from opslib.areas.queue_jobs import JobView
from opslib.areas.queue_overview import Overview, overviews

T = TypeVar("T")

PAGE = 100


def _ask(question: Callable[[Redis], Awaitable[T]]) -> T:
    async def run() -> T:
        async with opened(settings.load()) as here:
            return await question(here)

    return asyncio.run(run())


@click.group()
def queues() -> None:
    """BullMQ queues: jobs by state, workers, failures; retry, pause, drain and add."""


for change in actions.COMMANDS:
    queues.add_command(change)

COLUMNS: Sequence[Column | str] = (
    *("queue", Column("state", state=True), "workers", Column("is_paused", "Paused"), "waiting", "active", "delayed"),
    *("prioritized", "failed", Column("oldest", "Oldest waiting"), Column("last_activity", "Last activity (UTC)")),
)


@queues.command("list")
@printed
@reads
def list_(output: Output) -> None:
    """Show every queue: jobs by state, who works, and since when the oldest job has been waiting."""

    async def ask(here: Redis) -> Sequence[Overview]:
        every = list(here.queues.values())
        return await overviews(here.client, every, await attached(here.client, every))

    output.rows([_row(each) for each in _ask(ask)], COLUMNS, nothing="Redis holds no queue of that prefix")


def _row(each: Overview) -> dict[str, Any]:
    fields = asdict(each)
    return {"queue": fields.pop("queue"), **fields.pop("counts"), **fields}


@queues.command()
@click.argument("queue")
@printed_json
@reads
def show(queue: str, output: Output) -> None:
    """Show one queue in full."""

    async def ask(here: Redis) -> Overview:
        chosen = here.queue(queue)
        (found,) = await overviews(here.client, [chosen], await attached(here.client, [chosen]))
        return found

    found = _ask(ask)
    if not output.for_people:
        output.value(_row(found))
        return
    lines: list[tuple[str, Any, str]] = [
        ("queue", found.queue, "bold"),
        ("workers", f"{words(found.workers)}, {found.state}", tint(found.state)),
        ("last activity", found.last_activity, ""),
        ("paused", found.is_paused, "yellow" if found.is_paused else ""),
        *(
            (f"jobs {state.replace('_', ' ')}", count, "red" if state == "failed" and count else "")
            for state, count in found.counts.items()
        ),
        ("oldest waiting", found.oldest, ""),
        ("next delayed", found.next_delayed, ""),
        ("made by", found.version, ""),
    ]
    _facts(lines)


def _facts(lines: Sequence[tuple[str, Any, str]]) -> None:
    from rich.table import Table  # noqa: PLC0415 - not needed for JSON
    from rich.text import Text  # noqa: PLC0415 - as above

    grid = Table(box=None, pad_edge=False, show_header=False)
    for name, value, style in lines:
        grid.add_row(Text(name, "dim"), Text(words(value), style))
    console().print(grid)


@queues.command()
@click.argument("queue")
@click.option("--limit", type=click.IntRange(1, PAGE), default=20, show_default=True, help="Jobs at most.")
@printed
@reads
def failed(queue: str, limit: int, output: Output) -> None:
    """List the failed jobs of a queue, newest first: why, after how many attempts; with --json data and stack, too."""

    async def ask(here: Redis) -> Sequence[JobView]:
        chosen = here.queue(queue)
        return await queue_jobs.jobs(
            here.client, chosen, "failed", await queue_jobs.ids(here.client, chosen, "failed", limit)
        )

    columns: Sequence[Column | str] = (
        *("id", "name", Column("attempts_made", "Attempts"), Column("finished_at", "Failed (UTC)"), "reason"),
        "data",
    )
    output.rows([asdict(job) for job in _ask(ask)], columns, nothing=f"no failed job in {queue}")


@queues.command()
@click.argument("queue")
@click.argument("id_", metavar="ID")
@printed_json
@reads
def job(queue: str, id_: str, output: Output) -> None:
    """Show one job in full: data (redacted), options, attempts, stack and log."""

    async def ask(here: Redis) -> tuple[JobView, list[str]]:
        return await queue_jobs.job(here.client, here.queue(queue), id_)

    found, lines = _ask(ask)
    if not output.for_people:
        output.value({**asdict(found), "log": lines})
        return
    _facts(
        [
            ("job", f"{found.name} {found.id}", "bold"),
            ("state", found.state, tint(found.state)),
            ("added", found.added_at, ""),
            ("last attempt", found.started_at, ""),
            ("ended", found.finished_at, ""),
            ("attempts", f"{found.attempts_made} of {found.attempts}", ""),
            *([("delay", found.delay, "")] if found.delay else []),
            *([("priority", found.priority, "")] if found.priority else []),
            ("data", found.data, ""),
            ("options", found.options, ""),
            *([("result", found.result, "")] if found.result is not None else []),
            *([("progress", found.progress, "")] if found.progress else []),
            *([("reason", found.reason, "red")] if found.reason else []),
        ]
    )
    attempts = list(enumerate(found.stack, 1))
    for stack, same in itertools.groupby(attempts, key=lambda attempt: attempt[1]):
        numbers = [number for number, _ in same]
        click.echo(f"\nattempt {numbers[0]}" + (f" to {numbers[-1]}" if len(numbers) > 1 else ""))
        for line in stack.splitlines():
            click.echo(f"  {words(line)}")
    if lines:
        click.echo("\nlog")
        for line in lines:
            click.echo(f"  {words(line)}")
