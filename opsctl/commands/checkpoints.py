"""`opsctl exporter checkpoints`: what the exporters remember, from our own tables alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import psycopg
from psycopg.rows import dict_row
from rich.console import Console
from rich.table import Table

from opsctl.kinds import reads
from opslib import settings
from opslib.areas.queries import NAMED
from opslib.contract.session import connect
from opslib.errors import SourceError

Rows = Sequence[Mapping[str, Any]]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@reads
def checkpoints(*, as_json: bool) -> None:
    """Show where each exporter stands, and how far each family of the ledger has counted."""
    exporters, families = _read()
    if as_json:
        report = {"exporters": exporters, "families": families}
        click.echo(json.dumps(report, indent=2, default=lambda at: at.astimezone(UTC).isoformat()))
        return
    console = Console(highlight=False)
    console.print(_exporters(exporters) if exporters else "no exporter has saved anything yet")
    console.print()
    console.print(_families(families) if families else "the ledger has not started yet")


def _read() -> tuple[Rows, Rows]:
    dsn = settings.load().require_ops()
    try:
        with (
            connect(dsn, "opsctl exporter") as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            exporters, families = (
                cursor.execute(NAMED[name].sql).fetchall() for name in ("checkpoints", "ledger_families")
            )
    except SourceError as exc:
        if isinstance(exc.__cause__, (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)):
            raise SourceError("the ops schema is missing; run `opsctl migrate up`") from exc
        raise
    return exporters, families


def _exporters(rows: Rows) -> Table:
    table = Table("Exporter", "Running", "Owner", "Epoch", "Saved (UTC)", "Age", "Series", box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            row["exporter"],
            "yes" if row["held"] else "no",
            row["owner"],
            str(row["epoch"]),
            _time(row["saved_at"]),
            f"{row['age_seconds']:.0f} s",
            str(row["series"]),
        )
    return table


def _families(rows: Rows) -> Table:
    table = Table(
        *("Family", "Low water (UTC)", "Read from (UTC)", "Back-fill", "Seen", "Counted", "Reclassified", "Missed"),
        box=None,
        pad_edge=False,
    )
    for row in rows:
        table.add_row(
            row["family"],
            _time(row["low_water"]),
            _time(row["read_from"]),
            _backfill(row),
            *(str(row[n]) for n in ("seen", "events", "reclassified", "missed")),
        )
    return table


def _backfill(row: Mapping[str, Any]) -> str:
    if row["backfilled_at"] is not None:
        return f"done {_time(row['backfilled_at'])}"
    return "not begun" if row["backfill_from"] is None else f"up to {_time(row['backfill_from'])}"


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
