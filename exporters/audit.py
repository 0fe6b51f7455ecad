"""Who acts, who is refused, and is the memory of it intact?

Invariant: every intent has its outcome; the chain was proved within a day, and it was whole.
Source: `ops.audit_totals` and `ops.audit_head`, which the database keeps in the transaction of each event; the proof is
the job `audit-anchor`'s, or `opsctl audit verify`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from exporters.signals import audit as signals
from opslib.areas.queries import NAMED
from opslib.collector import Collector
from opslib.database_collector import DatabaseCollector
from opslib.postgres import Database
from opslib.settings import Settings
from opslib.spec import Counter, Gauge, Sample, Subject

EVENTS = Counter("ops_audit_events_total", "Audit events by action and outcome.", ("action", "outcome"))
LENGTH = Gauge("ops_audit_chain_events", "Length of the audit's hash chain; should it ever shrink, it was cut.")
UNFINISHED = Gauge(
    "ops_audit_unfinished_intents", "Actions begun more than an hour ago whose outcome was never written."
)
OLDEST = Gauge("ops_audit_oldest_unfinished_age_seconds", "Age of the oldest of those; absent when there is none.")
VERIFIED = Gauge(
    "ops_audit_verified_timestamp_seconds",
    "When the chain was last verified with this outcome, Unix time; absent when it never was.",
    ("outcome",),
)
INTACT = Gauge("ops_audit_intact", "1 if the last verification found nothing, 0 if it did; absent before the first.")
ANCHORED = Gauge("ops_audit_anchored_timestamp_seconds", "When the head was last noted outside, Unix time.")

REFRESH_SECONDS = 15.0
RUNNING = timedelta(hours=1)
"""An action may take this long before its open intent is a finding: a restore takes the longest."""

VERIFY, ANCHOR = "audit.verify", "audit.anchor"
WORDS = {"allowed": "intact", "failed": "damaged"}


class Audit(DatabaseCollector):
    """The audit's own numbers.

    Args:
        ops: The database of schema `ops`.
    """

    name = "audit"

    def __init__(self, ops: Database) -> None:
        super().__init__(ops, REFRESH_SECONDS)
        self._counts: Sequence[Sample] = ()

    async def collect(self) -> Sequence[Sample]:
        """Read the totals and the state."""
        totals = await self._database.rows(NAMED["audit_totals"].sql)
        (state,) = await self._database.rows(NAMED["audit_state"].sql, {"settle": RUNNING})
        self._counts = [EVENTS(row["events"], action=row["action"], outcome=row["outcome"]) for row in totals]
        last = {(row["action"], row["outcome"]): row["last_at"].timestamp() for row in totals}
        verified = {outcome: last[VERIFY, outcome] for outcome in WORDS if (VERIFY, outcome) in last}
        samples = [LENGTH(state["events"]), UNFINISHED(state["unfinished"])]
        samples += [VERIFIED(at, outcome=WORDS[outcome]) for outcome, at in verified.items()]
        if verified:
            samples.append(INTACT(max(verified, key=verified.__getitem__) == "allowed"))
        if state["oldest_seconds"] is not None:
            samples.append(OLDEST(state["oldest_seconds"]))
        if (ANCHOR, "allowed") in last:
            samples.append(ANCHORED(last[ANCHOR, "allowed"]))
        return samples

    def counts(self) -> Iterable[Sample]:
        """The last committed totals, whatever the database does now."""
        return self._counts


def collectors(settings: Settings) -> list[Collector]:
    """One."""
    return [Audit(Database(settings.require_ops(), application_name="opsctl audit", read_only=True))]


SUBJECT = Subject(
    name="audit",
    title="Operators' actions and the audit",
    needs=("DATABASE_URL",),
    metrics=(EVENTS, LENGTH, UNFINISHED, OLDEST, VERIFIED, INTACT, ANCHORED),
    collectors="exporters.audit:collectors",
    signals=signals.SIGNALS,
    alerts=signals.ALERTS,
)
