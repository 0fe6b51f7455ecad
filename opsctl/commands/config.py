"""`opsctl check-config`: are the settings whole, and where does each come from?"""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from opsctl import catalog
from opsctl.kinds import reads
from opslib import settings


@click.command("check-config")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@reads
def check_config(*, as_json: bool) -> None:
    """Check every setting; show its value, or `set` for a secret, and its origin.

    Exit code 2 names everything that is wrong at once.
    """
    loaded = settings.load()
    shown = loaded.describe()
    missing = {name: catalog.subject(name).missing(loaded.has) for name in catalog.SUBJECTS}
    if as_json:
        click.echo(json.dumps({"settings": [asdict(line) for line in shown], "exporters_miss": missing}, indent=2))
        return
    table = Table("Setting", "Value", "From", box=None, pad_edge=False)
    for line in shown:
        table.add_row(line.name, line.value or "-", line.origin)
    console = Console(highlight=False)
    console.print(table)
    for name, lacks in missing.items():
        console.print(f"exporter {name}: " + (f"needs {' and '.join(lacks)}" if lacks else "ready to run"))
