"""One table of what moves, on a terminal; a line every few seconds elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from rich.table import Table

from demo.page import Page
from demo.session import Session

MOVING = (
    ("bitloot_queue_jobs_total", ("queue", "result")),
    ("bitloot_queue_retries_total", ("queue",)),
    ("bitloot_queue_waiting", ("queue",)),
    ("bitloot_queue_failed", ("queue",)),
    ("bitloot_ipn_total", ("status",)),
    ("bitloot_webhook_total", ("provider", "outcome")),
    ("bitloot_underpaid_total", ()),
    ("bitloot_email_bounce_total", ("type",)),
    ("bitloot_orders", ("status",)),
    ("bitloot_reconciliation_orders", ("problem",)),
    ("bitloot_provider_balance", ("provider", "currency")),
    ("ops_job_runs_total", ("job_name", "outcome")),
)
"""What is shown: a family, summed up by these labels."""

TERMINAL_SECONDS = 2.0
LINE_SECONDS = 10.0

Row = tuple[str, str]


def rows(page: Page) -> Iterator[tuple[Row, float]]:
    """The table's rows."""
    for name, by in MOVING:
        sums: defaultdict[str, float] = defaultdict(float)
        for (metric, labels), value in page.values.items():
            if metric == name:
                sums[" ".join(dict(labels)[label] for label in by)] += value
        for of, total in sorted(sums.items()):
            yield (name.removeprefix("bitloot_"), of), total


async def watch(here: Session, console: Console) -> None:
    """Show what moves until cancelled."""
    if not console.is_terminal:
        while True:
            page = await here.page()
            console.print(_line(dict(rows(page))) if page else "the exporter does not answer", highlight=False)
            await asyncio.sleep(LINE_SECONDS)
    started, first = time.monotonic(), dict[Row, float]()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            page = await here.page()
            now = dict(rows(page)) if page else {}
            first = {**now, **first}
            live.update(_table(now, first, time.monotonic() - started), refresh=True)
            await asyncio.sleep(TERMINAL_SECONDS)


def _line(now: dict[Row, float]) -> str:
    jobs = sum(value for (name, _), value in now.items() if name == "queue_jobs_total")
    calls = sum(value for (name, _), value in now.items() if name == "webhook_total")
    stuck = sum(value for (name, _), value in now.items() if name == "reconciliation_orders")
    return f"{time.strftime('%H:%M:%S')}  jobs {jobs:g}  webhook calls {calls:g}  orders in disagreement {stuck:g}"


def _table(now: dict[Row, float], first: dict[Row, float], seconds: float) -> Table:
    table = Table(box=None, pad_edge=False)
    for column, justify in (("metric", "left"), ("of", "left"), ("now", "right"), ("a minute", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    before = ""
    for row, value in now.items():
        name, labels = row
        rate = (value - first[row]) / max(seconds, 1) * 60
        table.add_row("" if name == before else name, labels, f"{value:,.10g}", f"{rate:+.1f}" if rate else "")
        before = name
    return table
