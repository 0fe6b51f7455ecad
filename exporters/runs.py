"""Runs of jobs: did each succeed lately, how did it end, how long did it take, what waits?

Invariant: every job succeeded within its `max_age`, or `ops_job_overdue` says so: one rule for all of them. A job that
never ran counts from its declaration. Source: `ops.jobs`, and the totals the engine keeps beside the history (migration
0005): pruning never touches those, so no counter steps back.

The label is `job_name`: `job` is Prometheus's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from exporters.signals import runs as signals
from opslib.areas.queries import NAMED
from opslib.areas.runs import State
from opslib.collector import Collector
from opslib.database_collector import DatabaseCollector
from opslib.errors import SourceError
from opslib.postgres import Database
from opslib.settings import Settings
from opslib.spec import Counter, Gauge, Histogram, Sample, Subject

BY = ("job_name",)
LAST_SUCCESS = Gauge(
    "ops_job_last_success_timestamp_seconds", "When the job last succeeded, Unix time; absent if it never did.", BY
)
LAST_OUTCOME = Gauge(
    "ops_job_last_outcome", "1 for how the job's last run ended, 0 for how it did not.", ("job_name", "outcome")
)
RUNNING = Gauge("ops_job_running", "Runs being worked on.", BY)
QUEUED = Gauge("ops_job_queued", "Runs waiting for a worker, for their time, or for their next attempt.", BY)
OVERDUE = Gauge(
    "ops_job_overdue",
    "1 if the last success, or else the declaration, is longer ago than the job's max_age; absent if it has none or "
    "lacks settings.",
    BY,
)
MISSING = Gauge(
    "ops_job_missing_settings", "Settings the job cannot do without and does not have; it is not scheduled.", BY
)
RUNS = Counter("ops_job_runs_total", "Runs that ended, by outcome.", ("job_name", "outcome"))
DURATION = Histogram(
    "ops_job_duration_seconds",
    "From the start of a run's first attempt to its end; a run cancelled in the queue took none.",
    ("job_name", "outcome"),
    buckets=(1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400),  # as ops.job_bounds() has them
)
SKIPPED = Counter("ops_job_slots_skipped_total", "Times the job was due and left out, as its catch-up says.", BY)
LATE = Counter("ops_job_slots_late_total", "Times the job was due that came up after a later one; they never run.", BY)
LOST = Counter("ops_job_attempts_lost_total", "Attempts whose process died or fell silent.", BY)
TIMEOUTS = Counter("ops_job_attempt_timeouts_total", "Attempts killed because their time was up.", BY)
REFUSED = Counter("ops_job_results_refused_total", "Results refused: that attempt had been given up for lost.", BY)
TICKS = Counter(
    "ops_job_scheduler_events_total",
    "Ticks of a scheduler that went wrong: missed, error, max_instances. The slots themselves are caught up.",
    ("job_name", "event"),
)

OUTCOMES = (State.SUCCESS, State.FAILED, State.CANCELLED)
EVENTS = {
    "slot_skipped": SKIPPED,
    "slot_late": LATE,
    "attempt_lost": LOST,
    "attempt_timeout": TIMEOUTS,
    "result_refused": REFUSED,
}
TICK_EVENTS = ("missed", "error", "max_instances")
SECONDS = 5.0  # three small queries over our own tables

Row = dict[str, Any]


class Runs(DatabaseCollector):
    """Every declared job.

    Args:
        ops: The database of schema `ops`.
    """

    name = "runs"

    def __init__(self, ops: Database) -> None:
        super().__init__(ops, SECONDS)
        self._counts: Sequence[Sample] = ()

    async def collect(self) -> Sequence[Sample]:
        """Read jobs, totals and counts; what is committed there is durable."""
        jobs = await self._database.rows(NAMED["job_gauges"].sql)
        totals = await self._database.rows(NAMED["job_totals"].sql)
        counts = await self._database.rows(NAMED["job_counts"].sql)
        self._counts = [*_totals(jobs, totals), *_events(jobs, counts)]
        return [sample for job in jobs for sample in _gauges(job)]

    def counts(self) -> Iterable[Sample]:
        """As last read, whatever the database does now."""
        return self._counts


def _gauges(job: Row) -> Iterable[Sample]:
    name = job["job"]
    if job["last_success"] is not None:
        yield LAST_SUCCESS(job["last_success"], job_name=name)
    if job["last_outcome"] is not None:
        for outcome in OUTCOMES:
            yield LAST_OUTCOME(outcome == job["last_outcome"], job_name=name, outcome=outcome)
    yield RUNNING(job["running"], job_name=name)
    yield QUEUED(job["queued"], job_name=name)
    yield MISSING(job["missing"], job_name=name)
    if job["overdue"] is not None:
        yield OVERDUE(job["overdue"], job_name=name)


def _totals(jobs: Sequence[Row], totals: Sequence[Row]) -> Iterable[Sample]:
    """From 0 on for every declared job, or the first failure would be no increase; a retired one keeps what it has."""
    nothing: Row = {"runs": 0, "seconds": 0.0, "buckets": [0] * (len(DURATION.buckets) + 1)}
    ended = {(job["job"], str(outcome)): nothing for job in jobs for outcome in OUTCOMES}
    ended |= {(row["job"], row["outcome"]): row for row in totals}
    for (name, outcome), row in ended.items():
        if len(row["buckets"]) != len(nothing["buckets"]):
            raise SourceError("ops.job_bounds() is another release's: run `opsctl migrate up` and restart the exporter")
        yield RUNS(row["runs"], job_name=name, outcome=outcome)
        yield DURATION((*map(float, row["buckets"]), row["seconds"]), job_name=name, outcome=outcome)


def _events(jobs: Sequence[Row], counts: Sequence[Row]) -> Iterable[Sample]:
    counted = {(row["job"], row["event"]): row["count"] for row in counts}
    for name in dict.fromkeys([*(job["job"] for job in jobs), *(row["job"] for row in counts)]):
        for event, metric in EVENTS.items():
            yield metric(counted.get((name, event), 0), job_name=name)
        for event in TICK_EVENTS:
            yield TICKS(counted.get((name, f"tick_{event}"), 0), job_name=name, event=event)


def collectors(settings: Settings) -> list[Collector]:
    """One."""
    return [Runs(Database(settings.require_ops(), application_name="opsctl runs", read_only=True, size=2))]


SUBJECT = Subject(
    name="runs",
    title="Jobs and their runs",
    needs=(),
    needs_one=("OPS_DATABASE_URL", "DATABASE_URL"),
    metrics=(
        *(LAST_SUCCESS, LAST_OUTCOME, RUNNING, QUEUED, OVERDUE, MISSING),
        *(RUNS, DURATION, SKIPPED, LATE, LOST, TIMEOUTS, REFUSED, TICKS),
    ),
    collectors="exporters.runs:collectors",
    signals=signals.SIGNALS,
    alerts=signals.ALERTS,
)
