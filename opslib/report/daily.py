"""The page of a day."""

from __future__ import annotations

from datetime import date, datetime

from opslib.errors import OpsError
from opslib.report.model import Finding, Level, Report, Verdict
from opslib.report.sections import shop, trail, work
from opslib.report.sources import SETTLE, Period, Sources


def build(sources: Sources, day: date) -> Report:
    """Ask for everything. What cannot be read is said on the page; nothing is raised for it."""
    period = Period.day(day)
    sections = [
        shop.kpis(sources, period),
        shop.orders(sources, period),
        shop.webhooks(sources, period),
        shop.reconciliation(sources),
        work.queue_section(sources, period),
        work.providers(sources, period),
        work.jobs(sources, period),
        trail.backup_section(sources, period),
        trail.flags(sources, period),
        trail.audit(sources, period),
        trail.alerts(sources, period),
    ]
    through = data_through(sources, period)
    if through is None or through < period.until:
        sections[0].findings.append(Finding(Level.ATTENTION, "the day is not over, or its last minute not settled"))
    return Report(
        title=f"{day:%A} {day}",
        first=day,
        last=day,
        verdict=Verdict.of(sections),
        sections=sections,
        through=through,
        generated=sources.generated,
    )


def data_through(sources: Sources, period: Period) -> datetime | None:
    """Up to when every row's outcome is settled, at most to the end of the period; None: nobody knows."""
    try:
        return min(sources.now() - SETTLE, period.until)
    except OpsError:
        return None
