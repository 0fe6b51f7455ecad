"""Make a report: ask, judge, render; and put it where the settings say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from opslib.errors import ConfigError, JobError, OpsError
from opslib.report import daily, lists, render, weekly
from opslib.report.model import Report, Section, Verdict
from opslib.report.publish import Bucket, Entry, Folder, Root
from opslib.report.sources import Period, Sources
from opslib.settings import Settings
from opslib.storage import Storage


@dataclass(frozen=True, slots=True)
class Made:
    """A report as files.

    Attributes:
        report: What is said.
        place: Where it belongs below a root: `2026/11/19`, `2026/W47`.
        files: By name.
    """

    report: Report
    place: str
    files: render.Files

    @property
    def entry(self) -> Entry:
        """What the calendar remembers."""
        verdict = self.report.verdict
        return {"level": verdict.level.name.lower(), "verdict": verdict.sentence}


def day(
    settings: Settings, of: date, tick: Callable[[str], None] = lambda _: None, now: datetime | None = None
) -> Made:
    """The report of a day with its admin pages.

    Args:
        settings: What to ask.
        of: The day, UTC.
        tick: Told what is done next; may raise, to stop.
        now: When it is made.

    Raises:
        ConfigError: The day is still to come, or no source at all is set.
    """
    at = _now(settings, of, now)
    with Sources(settings, at) as sources:
        tick("numbers")
        report = daily.build(sources, of)
        tick("records")
        missing = Section("records", "Records", lead="The pages beside this one.")
        library = lists.read(sources, Period.day(of), missing)
    tick("pages")
    missing.gaps = list({gap.what: gap for gap in missing.gaps}.values())
    missing.links = [(every[0].of.title, every[0].file(1)) for every in library.lists]
    sections = [*report.sections, missing]
    known = {pages.file(1) for every in library.lists for pages in every}
    for section in sections:
        section.links = [(title, href) for title, href in section.links if href in known]
    # A list that could not be read keeps the day from green like any other gap.
    whole = Report(
        report.title, report.first, report.last, Verdict.of(sections), sections, report.through, report.generated
    )
    return Made(whole, f"{of:%Y/%m/%d}", render.report(whole, up="../../../", lists=library))


def week(
    settings: Settings, monday: date, tick: Callable[[str], None] = lambda _: None, now: datetime | None = None
) -> Made:
    """The report of a week; the arguments as of `day`.

    Raises:
        ConfigError: It is still to come, or no source at all is set.
    """
    at = _now(settings, monday, now)
    with Sources(settings, at) as sources:
        tick("numbers")
        report = weekly.build(sources, monday)
    for section in report.sections:
        section.links = []  # records are beside the reports of days
    tick("pages")
    return Made(report, f"{monday:%G/W%V}", render.report(report, up="../../"))


def monday_of(of: date) -> date:
    """The first day of its week."""
    return of - timedelta(days=of.weekday())


def _now(settings: Settings, first: date, now: datetime | None) -> datetime:
    at = now or datetime.now(UTC)
    if first > at.date():
        raise ConfigError(f"{first} is still to come (it is {at:%Y-%m-%d} UTC): name a day that has begun")
    if not any(map(settings.has, ("DATABASE_URL", "OPS_DATABASE_URL"))):
        raise ConfigError("a report needs a database: set DATABASE_URL")
    return at


def publish(settings: Settings, made: Made, tick: Callable[[str], None] = lambda _: None) -> dict[str, list[str]]:
    """Put a report wherever the settings say; what was removed there as too old, by name of the place.

    Raises:
        ConfigError: They say nowhere.
        JobError: One place could not be written; the others are.
    """
    roots: list[Root] = []
    if settings.ops_report_folder:
        roots.append(Folder(Path(settings.ops_report_folder)))
    if settings.r2_bucket:
        roots.append(Bucket(Storage.of(settings)))
    if not roots:
        raise ConfigError("reports go nowhere: set OPS_REPORT_FOLDER, or R2_BUCKET and what belongs to it")
    keep = {"keep_days": settings.ops_report_keep_days, "keep_weeks": settings.ops_report_keep_weeks}
    removed, failed = {}, []
    for root in roots:
        tick(root.name)
        try:
            removed[root.name] = root.publish(made.place, made.entry, made.files, **keep)
        except OpsError as exc:
            failed.append(f"{root.name}: {exc}")
    if failed:
        raise JobError(f"the report of {made.place} is not everywhere: {'; '.join(failed)}")
    return removed
