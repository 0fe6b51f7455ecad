"""Run every bench and print one table."""

from __future__ import annotations

import platform
import sys

from rich.console import Console
from rich.table import Table

from tests.bench import cli, exposition


def main() -> int:
    """Measure; exit code 1 when a ratio is beyond its bound."""
    table = Table("What", "Ours", "Against", "Theirs", "Ratio", "Bound", box=None)
    missed = 0
    for bench in (cli, exposition):
        for line in bench.run():
            missed += not line.met
            table.add_row(*line.cells(), style=None if line.met else "red")
    Console(width=140).print(table)
    print(f"Python {platform.python_version()}, {platform.machine()}")  # noqa: T201 - the report
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
