"""The page of a week: trends over eight of them, promises, the slowest and flakiest jobs, room left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal

from opslib.report.charts import Bars, Line, Spark
from opslib.report.daily import data_through
from opslib.report.model import Column, Finding, Kpi, Level, Report, Section, Verdict, table
from opslib.report.sections import trail
from opslib.report.sections.shop import PAID, percent
from opslib.report.sources import Period, Sources, reading

WEEKS = 8
MOST = 10
"""Jobs listed as slowest or flakiest."""

TRENDS: Sequence[tuple[str, str, tuple[str, ...], str]] = (
    ("Orders", "orders", (), ""),
    ("Value paid, EUR", "orders_eur", PAID, ""),
    ("Keys delivered", "deliveries", (), ""),
    ("Webhook errors", "webhooks", ("nowpayments/error", "kinguin/error", "other/error"), ""),
    ("E-mails bounced", "email_bounces", (), ""),
)
"""Title, subject, keys (none: all) and unit of each trend."""


def build(sources: Sources, monday: date) -> Report:
    """Ask for everything. What cannot be read is said on the page; nothing is raised for it."""
    period = Period(monday, monday + timedelta(days=6))
    sections = [
        _trends(sources, period),
        _objectives(sources, period),
        _jobs(sources, period),
        _capacity(sources, period),
        trail.alerts(sources, period),
        trail.audit(sources, period),
    ]
    through = data_through(sources, period)
    if through is None or through < period.until:
        sections[0].findings.append(Finding(Level.ATTENTION, "the week is not over"))
    year, week, _ = monday.isocalendar()
    return Report(
        title=f"Week {year}-W{week:02}",
        first=period.first,
        last=period.last,
        verdict=Verdict.of(sections),
        sections=sections,
        through=through,
        generated=sources.generated,
    )


def _trends(sources: Sources, period: Period) -> Section:
    section = Section("trends", f"{WEEKS} weeks", lead="From the facts the job `cleanup` writes each night.")
    with reading(section, "the facts of eight weeks"):
        first = period.first - timedelta(weeks=WEEKS - 1)
        written = {row["day"] for row in sources.rows("facts_days")}
        facts: dict[tuple[date, str], dict[str, Decimal]] = {}
        for row in sources.rows("facts_between", first=first, last=period.last):
            facts.setdefault((row["day"], row["subject"]), {})[row["key"]] = row["value"]
        weeks = [first + timedelta(weeks=n) for n in range(WEEKS)]
        missing = [day for n in range(7) if (day := period.first + timedelta(days=n)) not in written]
        if missing:
            text = f"no facts are written of {len(missing)} of 7 days, the first {missing[0]}"
            section.findings.append(Finding(Level.ATTENTION, text))
        for number, (title, subject, keys, unit) in enumerate(TRENDS):
            values = [_week(facts, written, week, subject, keys) for week in weeks]
            labels = [f"{week:%G-W%V}" for week in weeks]
            desc = f"{title} of each of {WEEKS} weeks; a week of which a day is not written is left out."
            section.charts.append(Line(f"trend{number}", title, desc, labels, [(title, "main", values)], unit))
            now, before = values[-1], values[-2]
            if now is not None:
                change = "not known" if before is None else percent(Decimal(now), Decimal(before))
                section.kpis.append(Kpi(title, f"{now:,.2f}".removesuffix(".00"), [("last week", change)]))
    return section


def _week(
    facts: dict[tuple[date, str], dict[str, Decimal]],
    written: set[date],
    monday: date,
    subject: str,
    keys: tuple[str, ...],
) -> float | None:
    days = [monday + timedelta(days=n) for n in range(7)]
    if not written.issuperset(days):
        return None
    of_days = (facts.get((day, subject), {}) for day in days)
    return float(sum((value for day in of_days for key, value in day.items() if not keys or key in keys), Decimal(0)))


def _objectives(sources: Sources, period: Period) -> Section:
    section = Section(
        "slo", "Promises", lead="The share of events of the week that broke a promise, of the share allowed."
    )
    if sources.prometheus is None:
        section.notes.append("Not asked: PROMETHEUS_URL is not set.")
        return section
    with reading(section, "what is left of each error budget"):
        at = min(period.until, sources.generated)
        rows = []
        for name, allowed in sorted(sources.prometheus.budgets().items()):
            query = f"avg_over_time(slo:{name}:error_ratio_3d[7d])"
            for labels, value in sources.prometheus.instant(query, at):
                of = ", ".join(f"{key}={text}" for key, text in sorted(labels.items()) if key != "__name__")
                used = value / allowed
                rows.append(
                    {
                        "promise": f"{name} {of}".strip(),
                        "broken": f"{value:.2%}",
                        "allowed": f"{allowed:.2%}",
                        "used": f"{used:.0%}",
                    }
                )
                if used > 1:
                    section.findings.append(Finding(Level.ATTENTION, f"{name} used {used:.0%} of its error budget"))
        columns = (
            Column("promise", "Promise"),
            *(Column(key, key.capitalize(), number=True) for key in ("broken", "allowed", "used")),
        )
        section.tables.append(table("Error budgets", columns, rows, "Prometheus holds no objective."))
    return section


def _jobs(sources: Sources, period: Period) -> Section:
    section = Section("jobs", "Jobs")
    with reading(section, "runs of jobs"):
        rows = sources.rows("runs_between", since=period.since, until=period.until)
        slowest = sorted((r for r in rows if r["longest_seconds"]), key=lambda r: -r["longest_seconds"])[:MOST]
        section.charts.append(
            Bars(
                "slowest",
                "Slowest jobs",
                "The jobs whose longest run of the week took longest.",
                [(row["job"], row["longest_seconds"], "main") for row in slowest],
                "s",
            )
        )
        flaky = sorted((r for r in rows if r["failed"] or r["retried"]), key=lambda r: (-r["failed"], -r["retried"]))[
            :MOST
        ]
        columns = (
            Column("job", "Job"),
            *(Column(key, key.capitalize(), number=True) for key in ("success", "retried", "failed", "cancelled")),
        )
        section.tables.append(table("Flakiest jobs", columns, flaky, "Every run succeeded at once."))
        if failed := sum(row["failed"] for row in rows):
            section.findings.append(Finding(Level.ATTENTION, f"{failed:,} runs of jobs failed"))
    return section


def _capacity(sources: Sources, period: Period) -> Section:
    section = Section("capacity", "Room")
    with reading(section, "the size of backups"):
        every = [row for row in reversed(trail.listing(sources)) if row["at"] < period.until][-trail.TREND_DAYS :]
        if every:
            section.charts.append(
                Spark(
                    "sizes",
                    "Size of backups",
                    "Bytes of each backup, oldest first.",
                    [f"{row['at']:%Y-%m-%d}" for row in every],
                    [row["size"] for row in every],
                    "B",
                )
            )
            days = max((every[-1]["at"] - every[0]["at"]) / timedelta(days=1), 1)
            grown = every[-1]["size"] - every[0]["size"]
            section.notes.append(f"Backups grew by {grown / days:,.0f} bytes a day over {days:.0f} days.")
        else:
            section.notes.append("There is no backup to tell the database's growth by.")
    return section
