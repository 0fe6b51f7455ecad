"""`opsctl orders show`: one order on one time line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from opsctl.actions.records import unmasking
from opsctl.output import Output, console, printed_json, span, tint, words
from opslib import settings
from opslib.areas import order_story, records
from opslib.areas.order_story import Moment, Story
from opslib.errors import OpsError

if TYPE_CHECKING:
    from opslib.areas.queue_jobs import JobView

AREAS = {
    "order": "bold",
    "payment": "cyan",
    "webhook": "magenta",
    "reservation": "blue",
    "job": "bright_blue",
    "key": "green",
}
REDIS_TIMEOUT = 5.0  # seconds: somebody waits, and the database's half of the story is already there


@click.command()
@click.argument("order_id", metavar="ID")
@printed_json
@unmasking("orders")
def show(*, order_id: str, output: Output, unmask: bool) -> None:
    """Tell what happened to an order: payments, notifications, reservations, jobs and keys on one time line."""
    loaded = settings.load()
    with records.connect(loaded.reveal("DATABASE_URL")) as connection:
        story = order_story.read(connection, order_id)
        if unmask:
            records.unmask(connection, records.LISTINGS["orders"], [story.order])
    note = ""
    if loaded.redis_url is None:
        note = "its jobs are not shown: REDIS_URL is not set"
    else:
        try:
            story.jobs = asyncio.run(
                _jobs(loaded.reveal("REDIS_URL"), loaded.bullmq_prefix, str(story.order["order_id"]))
            )
        except OpsError as exc:
            note = f"its jobs are not shown: {exc}"
    state, finding = story.finding(datetime.now(UTC))
    if output.for_people:
        screen = console()
        for part in picture(story, state, finding, note):
            screen.print(part)
        return
    moments = [asdict(moment) for moment in story.moments()]
    parts = {name: getattr(story, name) for name in ("order", "items", "payments", "webhooks", "reservations", "keys")}
    jobs = [asdict(job) for job in story.jobs]
    output.value({**parts, "jobs": jobs, "timeline": moments, "state": state, "finding": finding, "note": note})


async def _jobs(url: str, prefix: str, order_id: str) -> list[JobView]:
    from opslib import redis  # noqa: PLC0415 - a list of records needs no Redis, and shares this module's import
    from opslib.areas import queue_jobs, queues  # noqa: PLC0415 - as above
    from opslib.areas.queue_discovery import Discovery  # noqa: PLC0415 - as above

    client = queues.connect(url, name="opsctl", timeout=REDIS_TIMEOUT)
    try:
        discovery = Discovery(client, prefix)
        await discovery.sweep()
        return [job async for job in queue_jobs.mentioning(client, sorted(discovery.queues), order_id)]
    finally:
        await redis.close(client)


def picture(story: Story, state: str, finding: str, note: str) -> Sequence[Any]:
    """The story as a terminal shows it: the order, its items, the time line, and what it comes to."""
    from rich.table import Table  # noqa: PLC0415 - not needed for JSON
    from rich.text import Text  # noqa: PLC0415 - as above

    order = story.order
    head = Text.assemble(
        ("Order ", "bold"),
        (str(order["order_id"]), "bold"),
        "  ",
        (order["status"], f"bold {tint(order['status'])}"),
        f"  {order['total']:.2f} EUR  {order['source']}  {words(order['email'])}",
    )
    items = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for item in story.items:
        keys = [key for key in story.keys if key["item_id"] == item["item_id"]]
        opened = sum(1 for key in keys if key["viewed_at"])
        delivery = f"{len(keys)} of {item['quantity']} keys handed out, {opened} opened"
        items.add_row(
            Text(f"  item {str(item['item_id'])[:8]}"),
            Text(f"{item['quantity']} x product {item['product_id'][:8]} at {item['unit_price']:.2f}"),
            Text(delivery, style="green" if len(keys) == item["quantity"] else "yellow"),
        )
    lines = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("UTC", "after", "", "what happened", ""):
        lines.add_column(title, justify="right" if title == "after" else "left", overflow="fold")
    begin, day = order["created_at"], None
    for moment in story.moments():
        lines.add_row(*_line(moment, begin, day))
        day = moment.at and moment.at.date()
    verdict = Text.assemble(("=> ", "bold"), (finding, f"bold {tint(state)}"))
    return [
        head,
        *([items] if story.items else []),
        Text(),
        lines,
        Text(),
        verdict,
        *([Text(note, "dim")] if note else []),
    ]


def _line(moment: Moment, begin: datetime, day: Any) -> Sequence[Any]:
    from rich.text import Text  # noqa: PLC0415 - as above

    if moment.at is None:
        at, after = "-", ""
    else:
        form = "%H:%M:%S" if day == moment.at.date() else "%Y-%m-%d %H:%M:%S"
        at = f"{moment.at:{form}}.{moment.at.microsecond // 1000:03d}"
        after = f"+{span(moment.at - begin)}" if moment.at > begin else ""
    return (
        Text(at.rjust(23), "dim"),
        Text(after, "dim"),
        Text(moment.area, AREAS[moment.area]),
        Text(words(moment.what)),
        Text(moment.state, f"bold {tint(moment.state)}"),
    )
