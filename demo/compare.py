"""The truth against the page, series by series, in both directions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from demo.page import Page
from demo.truth import Series

EXACT = frozenset(
    {
        "bitloot_app_restarts_total",
        "bitloot_backup_newest_bytes",
        "bitloot_backup_newest_proven",
        "bitloot_backup_pending_uploads",
        "bitloot_backup_proven",
        "bitloot_backup_size_ratio",
        "bitloot_backups",
        "bitloot_email_bounce_total",
        "bitloot_email_fail_total",
        "bitloot_ipn_total",
        "bitloot_job_duration_seconds_count",
        "bitloot_job_wait_seconds_count",
        "bitloot_orders",
        "bitloot_paid_to_fulfilled_seconds_count",
        "bitloot_payments",
        "bitloot_provider_balance",
        "bitloot_provider_quota_errors_total",
        "bitloot_provider_rate_limit_remaining",
        "bitloot_provider_up",
        "bitloot_queue_active",
        "bitloot_queue_completed",
        "bitloot_queue_delayed",
        "bitloot_queue_event_gaps_total",
        "bitloot_queue_events_lost_total",
        "bitloot_queue_failed",
        "bitloot_queue_is_paused",
        "bitloot_queue_jobs_total",
        "bitloot_queue_next_delayed_timestamp_seconds",
        "bitloot_queue_paused",
        "bitloot_queue_prioritized",
        "bitloot_queue_retries_total",
        "bitloot_queue_stalled_total",
        "bitloot_queue_waiting",
        "bitloot_queue_waiting_children",
        "bitloot_queue_worker_present",
        "bitloot_reconciliation_orders",
        "bitloot_reconciliation_value_eur",
        "bitloot_underpaid_total",
        "bitloot_webhook_reclassified_total",
        "bitloot_webhook_total",
        "ops_contract_missing_indexes",
        "ops_contract_ok",
        "ops_dropped_series_total",
        "ops_job_attempt_timeouts_total",
        "ops_job_attempts_lost_total",
        "ops_job_duration_seconds_count",
        "ops_job_last_outcome",
        "ops_job_overdue",
        "ops_job_queued",
        "ops_job_results_refused_total",
        "ops_job_running",
        "ops_job_runs_total",
        "ops_job_scheduler_events_total",
        "ops_job_slots_late_total",
        "ops_job_slots_skipped_total",
        "ops_ledger_missed_total",
    }
)
"""Compared number by number. What is expected must be there; what is there and not zero must be expected."""

BETWEEN = frozenset(
    {
        "bitloot_backup_newest_timestamp_seconds",
        "bitloot_provider_balance_age_seconds",
        "bitloot_queue_oldest_waiting_age_seconds",
        "bitloot_reconciliation_oldest_age_seconds",
    }
)
"""Move by themselves, or are told roughly: they must be there, or not be there, and lie between two bounds."""

FREE = {
    "bitloot_backup_check_seconds": "measures this machine",
    "bitloot_backup_proven_timestamp_seconds": "a moment in the past",
    "bitloot_provider_latency_seconds": "measures this machine",
    "bitloot_provider_runway_days": "needs a day of balances",
    "bitloot_queue_last_activity_timestamp_seconds": "a moment in the past",
    "ops_job_last_success_timestamp_seconds": "a moment in the past",
    "ops_job_missing_settings": "says which settings the demo does without",
    "bitloot_queue_workers": "counts connections, of which a Python worker has more than a Node one",
}
"""Not compared, and why."""


Bounds = tuple[float, float]
"""The least and the greatest value that is right."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One series that is not as it should be. None: absent, or not expected."""

    of: Series
    expected: float | Bounds | None
    found: float | None


def differences(exact: Mapping[Series, float], between: Mapping[Series, Bounds], page: Page) -> list[Difference]:
    """Everything that differs.

    Args:
        exact: Every expected series of `EXACT`.
        between: Every expected series of `BETWEEN`.
        page: What the exporter says.
    """
    return sorted(
        [*_exact(exact, page), *_between(between, page), *_down(page), *_unknown(page)],
        key=lambda difference: difference.of,
    )


def _exact(expected: Mapping[Series, float], page: Page) -> Iterable[Difference]:
    for of, value in expected.items():
        found = page.values.get(of)
        if found is None or not math.isclose(found, value, rel_tol=1e-9, abs_tol=1e-6):
            yield Difference(of, value, found)
    for of, value in page.values.items():
        if of[0] in EXACT and value and of not in expected:
            yield Difference(of, None, value)


def _between(expected: Mapping[Series, Bounds], page: Page) -> Iterable[Difference]:
    for of, (least, most) in expected.items():
        found = page.values.get(of)
        if found is None or not least <= found <= most:
            yield Difference(of, (least, most), found)
    for of, value in page.values.items():
        if of[0] in BETWEEN and of not in expected:
            yield Difference(of, None, value)


def _down(page: Page) -> Iterable[Difference]:
    """Every collector is up."""
    for of, value in page.values.items():
        if of[0] == "ops_collector_up" and value != 1:
            yield Difference(of, 1, value)


def _unknown(page: Page) -> Iterable[Difference]:
    """A family of the application that nobody told this check about: add it to one of the lists above."""
    listed = EXACT | BETWEEN | FREE.keys()
    for of, family in page.families.items():
        if family.startswith(("bitloot_", "ops_job_")) and not {of[0], family} & listed:
            yield Difference(of, None, page.values[of])
