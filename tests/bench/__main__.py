"""Run every bench and print one table."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.table import Table

from tests.bench import (
    audit,
    backup,
    cli,
    export,
    exposition,
    history,
    job_cancel,
    job_slots,
    lists,
    queue_events,
    queue_outage,
    queue_scrapes,
    report,
    sql,
)
from tests.bench.line import Line

PARTS: dict[str, Callable[[], Iterable[Line]]] = {
    "audit": audit.run,
    "backup": backup.run,
    "cli": cli.run,
    "export": export.run,
    "exposition": exposition.run,
    "history": history.run,
    "job-cancel": job_cancel.run,
    "job-slots": job_slots.run,
    "lists": lists.run,
    "queue-scrapes": queue_scrapes.run,
    "queue-events": queue_events.run,
    "queue-outage": queue_outage.run,
    "report": report.run,
    "sql": sql.run,
}


def main() -> int:
    """Measure; exit code 1 when a ratio is beyond its bound."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=(*PARTS, []), metavar="PART", help="all, if none is named")
    chosen = parser.parse_args().parts or PARTS
    table = Table("What", "Ours", "Against", "Theirs", "Ratio", "Bound", box=None)
    missed = 0
    for part in chosen:
        for line in PARTS[part]():
            missed += not line.met
            table.add_row(*line.cells(), style=None if line.met else "red")
    Console(width=140).print(table)
    print(f"Python {platform.python_version()}, {platform.machine()}")  # noqa: T201 - the report
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
