"""`opsctl report`: the static report, by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import click

from opsctl.kinds import reads
from opslib import log, settings


class Day(click.ParamType[date]):
    """`2026-11-19`, `today` or `yesterday`, UTC."""

    name = "DAY"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """The day."""
        if isinstance(value, date):
            return value
        text, today = str(value).strip(), datetime.now(UTC).date()
        if text in {"today", "yesterday"}:
            return today - timedelta(days=text == "yesterday")
        try:
            # Also a week: 2026-W47 is its Monday.
            return datetime.strptime(f"{text}-1", "%G-W%V-%u").date() if "W" in text else date.fromisoformat(text)  # noqa: DTZ007 - a date
        except ValueError:
            self.fail(f"{text!r} is no day: write 2026-11-19, 2026-W47, today or yesterday", param, ctx)


DAY = Day()


@click.group()
def report() -> None:
    """The static report of a day or a week: pages that need no server."""


@report.command()
@click.option("--day", type=DAY, metavar="DAY", help="2026-11-19, today or yesterday (UTC).")
@click.option("--week", type=DAY, metavar="WEEK", help="2026-W47, or any day of it.")
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), help="Where to; unset: OPS_REPORT_FOLDER.")
@reads
def build(day: date | None, week: date | None, folder: Path | None) -> None:
    """Build a report into a folder; its index.html is the way in. Prints where it is, and the verdict."""
    from opslib.report import make  # noqa: PLC0415 - only here
    from opslib.report.publish import Folder  # noqa: PLC0415 - only here

    if (day is None) == (week is None):
        raise click.UsageError("give either --day or --week")
    loaded = settings.load()
    log.configure(loaded.model_copy(update={"ops_log_level": "warning"}))  # how Redis is read is an exporter's news
    to = folder or (Path(loaded.ops_report_folder) if loaded.ops_report_folder else None)
    if to is None:
        raise click.UsageError("where to? give -o FOLDER, or set OPS_REPORT_FOLDER")
    made = make.day(loaded, day) if day else make.week(loaded, make.monday_of(week or date.min))
    # What somebody builds by hand removes nothing: retention is the job's.
    Folder(to).publish(made.place, made.entry, made.files, keep_days=10**6, keep_weeks=10**6)
    click.echo(to / made.place / "index.html")
    click.echo(made.report.verdict.sentence, err=True)
