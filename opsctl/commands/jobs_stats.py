"""`opsctl jobs stats`: figures over every kept run, remembered for half a minute."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from opsctl.kinds import reads
from opsctl.output import Column, Output, printed, to_json
from opslib import settings
from opslib.areas import history
from opslib.session import session

CACHED_SECONDS = 30.0
"""A second over a million runs: whoever looks again at once gets the same figures, and nobody else pays."""

_TIMES = ("mean_seconds", "median_seconds", "p95_seconds", "longest_seconds")


@click.command()
@printed
@reads
def stats(output: Output) -> None:
    """Show each job's kept runs by state, how long they took, and the share that succeeded. At most 30 s old."""
    dsn = settings.load().require_ops()
    rows = _remembered(dsn)
    if rows is None:
        with session(dsn, "jobs stats") as connection:
            rows = history.stats(connection)
        _remember(dsn, rows)
    shown = rows
    if output.for_people:
        shown = [
            {
                **row,
                "success_rate": None if row["success_rate"] is None else f"{row['success_rate']:.1%}",
                **{name: None if row[name] is None else round(row[name], 1) for name in _TIMES},
            }
            for row in rows
        ]
    output.rows(
        shown,
        (
            *("job", "queued", "running", "success", "failed", "cancelled", "success_rate"),
            *(Column("mean_seconds", "Mean s"), Column("median_seconds", "Median s"), Column("p95_seconds", "p95 s")),
            *(Column("longest_seconds", "Longest s"), Column("since", "Since (UTC)")),
        ),
        nothing="nothing ran yet",
    )


def _file(dsn: str) -> Path:
    """Ours alone, one per database and login; the name tells nothing.

    Raises:
        OSError: This user has no place for it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or f"{os.environ.get('HOME', '')}/.cache")
    if not cache.is_absolute() or cache == Path("/.cache"):
        raise FileNotFoundError("no HOME")
    return cache / "bitloot-ops" / f"jobs-stats-{hashlib.sha256(dsn.encode()).hexdigest()[:16]}.json"


def _remembered(dsn: str) -> list[dict[str, Any]] | None:
    try:
        with _file(dsn).open(encoding="utf-8") as held:
            status = os.fstat(held.fileno())
            if status.st_uid != os.geteuid() or not 0 <= time.time() - status.st_mtime < CACHED_SECONDS:
                return None
            rows: list[dict[str, Any]] = json.load(held)
            return [{**row, "since": datetime.fromisoformat(row["since"])} for row in rows]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _remember(dsn: str, rows: list[dict[str, Any]]) -> None:
    """Write it whole or not at all; where nothing can be written nothing is remembered."""
    with contextlib.suppress(OSError):
        file = _file(dsn)
        part = file.with_suffix(f".{os.getpid()}")
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.write_text(to_json(rows), "utf-8")
        part.replace(file)
