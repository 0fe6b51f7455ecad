"""Work: the application's queues, the providers behind them, our own jobs."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from opslib.areas import balances, history
from opslib.areas.history import Filter
from opslib.areas.queue_jobs import JobView
from opslib.areas.runs import State
from opslib.report import numbers, queues
from opslib.report.charts import Stacked, Strip
from opslib.report.model import Column, Finding, Level, Section, table
from opslib.report.sources import Period, Sources, reading
from opslib.shown import words

WAITED = timedelta(minutes=15)
"""A job that waits longer has nobody who takes it."""
SLOT_STATES = ("FAILED", "CANCELLED", "SKIPPED", "RUNNING", "QUEUED", "ARCHIVED", "SUCCESS")
"""The worst first: a cell of several slots has the colour of the worst."""
SLOT_TONES = {"FAILED": "bad", "CANCELLED": "warn", "SKIPPED": "warn", "SUCCESS": "ok"}


def queue_section(sources: Sources, period: Period) -> Section:
    """Throughput, failures, what waits."""
    section = Section("queues", "Queues", links=[("Failed jobs", "failed-jobs.html")])
    with reading(section, "how many jobs the queues did"):
        _throughput(section, sources, period)
    with reading(section, "the queues in Redis"):
        found = sources.once("redis", lambda: queues.read(sources.settings))
        rows: list[dict[str, Any]] = []
        for each in found.overviews:
            late = each.oldest is not None and each.oldest > WAITED
            rows.append(
                {
                    "queue": each.queue,
                    "state": each.state,
                    "workers": each.workers,
                    "waiting": each.counts["waiting"] + each.counts["prioritized"],
                    "oldest": each.oldest,
                    "failed": each.counts["failed"],
                }
            )
            if late and not each.is_paused:
                text = f"queue {each.queue} has had a job waiting for {words(each.oldest)}"
                section.findings.append(Finding(Level.BROKEN if each.state == "stopped" else Level.ATTENTION, text))
            if each.is_paused:
                section.findings.append(Finding(Level.ATTENTION, f"queue {each.queue} is paused"))
        columns = (
            Column("queue", "Queue"),
            Column("state", "Workers are", state=True),
            *(Column(key, key.capitalize(), number=True) for key in ("workers", "waiting", "oldest", "failed")),
        )
        section.tables.append(
            table("Queues as they stand when the report is made", columns, rows, "There is no queue.")
        )
        failed = [job for jobs in found.failed.values() for job in jobs if _on(job, period)]
        section.tables += [
            _top(failed, "reason", "Failures of the day by reason"),
            _top(failed, "name", "Top failing jobs of the day"),
        ]
        if failed:
            section.findings.append(Finding(Level.ATTENTION, f"{len(failed):,} queue jobs failed for good"))
        if any(len(jobs) == queues.NEWEST for jobs in found.failed.values()):
            section.notes.append(f"Of a queue the newest {queues.NEWEST} failed jobs are looked at; there are more.")
    return section


def _on(job: JobView, period: Period) -> bool:
    return job.finished_at is not None and period.since <= job.finished_at < period.until


def _top(failed: list[JobView], field: str, caption: str) -> Any:
    counts = Counter((job.queue, str(getattr(job, field) or "not said")) for job in failed)
    rows = [{"queue": queue, "what": what, "jobs": count} for (queue, what), count in counts.most_common(10)]
    columns = (Column("queue", "Queue"), Column("what", field.capitalize()), Column("jobs", "Jobs", number=True))
    return table(caption, columns, rows, "No job that failed on this day is kept.")


def _throughput(section: Section, sources: Sources, period: Period) -> None:
    found = numbers.counted(sources, period.last, "queue_jobs_total")
    if found is None:
        section.notes.append(
            "How many jobs the queues did on this day is not known: `cleanup` reads the counter each night."
        )
        return
    by_queue: dict[str, dict[str, int]] = {}
    for key, count in found.items():
        queue, _, result = key.rpartition("/")
        by_queue.setdefault(queue, {})[result] = int(count)
    section.lead = "Jobs that ended from one nightly reading of the counter to the next."
    section.charts.append(
        Stacked(
            "throughput",
            "Jobs that ended",
            "Jobs of each queue that completed or failed for good between two nightly readings.",
            (("completed", "ok"), ("failed", "bad")),
            sorted(by_queue.items()),
        )
    )


def providers(sources: Sources, period: Period) -> Section:
    """Balances, how long they last, how long answers took."""
    section = Section("providers", "Providers", lead="Balances as last noted before the end of the day.")
    latency: dict[str, float] = {}
    if sources.prometheus is not None:
        with reading(section, "how long providers took"):
            query = "max by (provider) (quantile_over_time(0.95, bitloot_provider_latency_seconds[1d]))"
            at = min(period.until, sources.generated)
            latency = {labels["provider"]: value for labels, value in sources.prometheus.instant(query, at)}
    with reading(section, "balances"):
        rows = []
        for row in sources.rows("balances_last", until=period.until):
            spent = {
                each["currency"]: each
                for each in sources.rows(
                    "balance_spend", provider=row["provider"], since=period.until - timedelta(days=7)
                )
            }.get(row["currency"])
            days = balances.runway(float(row["amount"]), spent["spent"], spent["seconds"]) if spent else None
            rows.append({**row, "runway": days, "latency": latency.get(row["provider"])})
            if days is not None and days < balances.RUNWAY_SHORT_DAYS:
                text = f"{row['currency']} at {row['provider']} lasts {days:.1f} days"
                section.findings.append(Finding(Level.ATTENTION, text))
        columns = (
            Column("provider", "Provider"),
            Column("currency", "Currency"),
            Column("amount", "Balance", number=True),
            Column("taken_at", "Noted (UTC)"),
            Column("runway", "Lasts, days", number=True),
            Column("latency", "95 % of answers within, s", number=True),
        )
        shown = [{**row, **{key: _rounded(row[key]) for key in ("runway", "latency")}} for row in rows]
        section.tables.append(table("Balances", columns, shown, "No balance was noted before this day ended."))
    if sources.prometheus is None:
        section.notes.append("How long providers took is not asked: PROMETHEUS_URL is not set.")
    return section


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def jobs(sources: Sources, period: Period) -> Section:
    """Each slot of the day, what is overdue, what failed."""
    section = Section("jobs", "Our jobs", links=[("Job runs", "job-runs.html")])
    with reading(section, "slots of jobs"):
        rows = sources.rows("slots_between", since=period.since, until=period.until)
        section.charts.append(_strip(rows, period.since))
    with reading(section, "whether a job is overdue"):
        gauges = sources.rows("job_gauges")
        if idle := [row["job"] for row in gauges if row["missing"]]:
            section.notes.append(f"Not scheduled, as settings they need are not set: {', '.join(idle)}.")
        for row in gauges:
            if row["overdue"]:
                section.findings.append(Finding(Level.BROKEN, f"job {row['job']} is overdue"))
    with reading(section, "runs that failed"), sources.ops.asking() as connection:
        failed = history.page(connection, Filter(state=State.FAILED, since=period.since, until=period.until), 20)
        columns = (
            Column("id", "Run", number=True),
            Column("job", "Job"),
            Column("queued", "Queued (UTC)"),
            Column("attempt", "Attempts", number=True),
            Column("error", "Error"),
        )
        section.tables.append(table("Runs that failed", columns, failed.rows, "No run failed."))
        if failed.rows:
            more = "or more " if failed.next else ""
            section.findings.append(Finding(Level.ATTENTION, f"{len(failed.rows)} {more}runs of jobs failed"))
    return section


def _strip(rows: list[dict[str, Any]], since: datetime) -> Strip:
    labels = [f"{n // 2:02}:{n % 2 * 30:02}" for n in range(48)]
    found: dict[str, dict[int, dict[str, int]]] = {}
    for row in rows:
        place = int((row["bin"] - since).total_seconds() // 1800)
        found.setdefault(row["job"], {}).setdefault(place, {})[row["state"]] = int(row["slots"])
    return Strip(
        "slots",
        "What became of each slot",
        "For each job the half hours in which it was due, coloured by the worst that became of it; empty: not due.",
        labels,
        [(job, [_slot(cells.get(n, {})) for n in range(48)]) for job, cells in sorted(found.items())],
    )


def _slot(states: dict[str, int]) -> tuple[str, str]:
    if not states:
        return "", ""
    worst = next((state for state in SLOT_STATES if state in states), "SUCCESS")
    said = ", ".join(f"{count} {state.lower()}" for state, count in sorted(states.items()))
    return SLOT_TONES.get(worst, "main"), said
