"""Money events: what the application's tables say happened, counted exactly once.

Invariant: every settled row of a family is in exactly one counter, across restarts, late commits and deleted rows.
Source: the canonical views (docs/contract.md); what leaves no row comes from the `app` exporter, through the ops
database. The gauges over the same tables are in `reconciliation`.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import product

from exporters import contract, reconciliation
from exporters.signals import ledger as signals
from opslib.areas import app_totals
from opslib.areas.ledger import Family, Ledger, Row
from opslib.areas.queries import NAMED
from opslib.collector import Collector, Every
from opslib.postgres import Database
from opslib.settings import Settings
from opslib.spec import Counter, Histogram, Sample, Subject

IPN = Counter("bitloot_ipn_total", "Payment notifications of NOWPayments, by what became of them.", ("status",))
WEBHOOK = Counter("bitloot_webhook_total", "Webhook calls received, by outcome.", ("provider", "outcome"))
RECLASSIFIED = Counter(
    "bitloot_webhook_reclassified_total",
    "Webhook calls whose outcome changed after they were counted; the first count stays.",
    ("provider", "from", "to"),
)
UNDERPAID = Counter("bitloot_underpaid_total", "Orders that became underpaid.")
EMAIL_FAIL = Counter("bitloot_email_fail_total", "E-mails the application failed to send.")
BOUNCE = Counter("bitloot_email_bounce_total", "E-mails that bounced, by type.", ("type",))
PAID_TO_FULFILLED = Histogram(
    "bitloot_paid_to_fulfilled_seconds",
    "From the notification that a payment finished to the last key delivered.",
    buckets=(1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600),
)
MISSED = Counter(
    "ops_ledger_missed_total",
    "Rows only the nightly recount found; should it grow, raise OPS_LEDGER_HORIZON_SECONDS.",
    ("family",),
)
METRICS = (IPN, WEBHOOK, RECLASSIFIED, UNDERPAID, EMAIL_FAIL, BOUNCE, PAID_TO_FULFILLED, MISSED)

OUTCOMES = ("ok", "duplicate", "invalid", "error")
BOUNCES = ("hard", "soft", "complaint")
CONTRACT_SECONDS = 15.0  # a catalog query, so that a suspended contract shows within one scrape or two
UNKNOWN = "unknown"  # a fulfilment whose payment left no notification: seen, and observed in no bucket


class LedgerCollector(Collector):
    """One family of the ledger on the page: the shape all of them share.

    Args:
        ledger: Its counting.
        seconds: Between two refreshes.
    """

    family: Family

    def __init__(self, ledger: Ledger, seconds: float) -> None:
        self.name = f"ledger/{ledger.family.name}"
        self.refresh = Every(seconds)
        self.ledger = ledger
        self._counts: Sequence[Sample] = ()

    async def collect(self) -> Sequence[Sample]:
        """Count what is new, then read the totals that are committed. It has no gauges."""
        await self.ledger.refresh()
        if self.ledger.complete:
            self._counts = [*await self.show(), MISSED(self.ledger.missed, family=self.ledger.family.name)]
        return ()

    @abstractmethod
    async def show(self) -> Sequence[Sample]:
        """The committed totals as samples."""

    def counts(self) -> Iterable[Sample]:
        """The last committed totals, whatever the database does now."""
        return self._counts

    def ready(self) -> bool:
        """Has the back-fill ended?"""
        return self.ledger.complete

    async def probe(self) -> None:
        """Do the databases answer?"""
        await self.ledger.ping()

    async def start(self) -> None:
        """Make the databases ready to be asked."""
        await self.ledger.open()

    async def stop(self) -> None:
        """Let go of them."""
        await self.ledger.close()


class Webhooks(LedgerCollector):
    """Webhook calls by provider and outcome.

    Args:
        ledger: Its counting.
        seconds: Between two refreshes.
        app: The checkpoint of the `app` exporter.
    """

    family = Family("webhook", since="webhook_since", history="webhook_history", slice="webhook_slice")

    def __init__(self, ledger: Ledger, seconds: float, app: str) -> None:
        super().__init__(ledger, seconds)
        self._app = app

    async def show(self) -> Sequence[Sample]:
        """Rows, and the calls that leave none, which only the application's own counters know."""
        webhooks = dict.fromkeys([*product(("nowpayments",), OUTCOMES), ("kinguin", "ok"), ("kinguin", "error")], 0.0)
        for row in await self.ledger.totals():
            webhooks[row["subject"], row["outcome"]] = row["events"]
        emails: list[Sample] = []
        for row in await self.ledger.ops.rows(NAMED["app_totals"].sql, {"exporter": self._app}):
            name, *labels = json.loads(row["series"])
            (value,) = row["value"]
            if name == app_totals.WEBHOOK.name:
                provider, outcome = labels
                webhooks[provider, outcome] = webhooks.get((provider, outcome), 0) + value
            elif name == app_totals.EMAIL_FAIL.name:
                emails.append(EMAIL_FAIL(value))
        return [
            *(WEBHOOK(value, provider=provider, outcome=outcome) for (provider, outcome), value in webhooks.items()),
            *(IPN(webhooks["nowpayments", status], status=status) for status in ("ok", "invalid")),
            *emails,
            *(
                RECLASSIFIED(
                    row["events"],
                    **{"provider": row["subject"], "from": row["from_outcome"], "to": row["to_outcome"]},
                )
                for row in await self.ledger.reclassified()
            ),
        ]


class Underpaid(LedgerCollector):
    """Orders that became underpaid, each once."""

    # A NOWPayments address lives seven days: until then a payment, and with it the order, can still become underpaid.
    family = Family("underpaid", since="underpaid_since", history="underpaid_history", horizon=timedelta(days=7))

    async def show(self) -> Sequence[Sample]:
        """One count."""
        return [UNDERPAID(sum(row["events"] for row in await self.ledger.totals()))]


class Bounces(LedgerCollector):
    """E-mails that bounced."""

    family = Family("bounce", since="bounce_since", history="bounce_history")

    async def show(self) -> Sequence[Sample]:
        """By type."""
        counted = {row["outcome"]: row["events"] for row in await self.ledger.totals()}
        return [BOUNCE(count, type=kind) for kind, count in {**dict.fromkeys(BOUNCES, 0), **counted}.items()]


def bucket(row: Row) -> str:
    """A fulfilment's outcome in the ledger: the index of its bucket in `PAID_TO_FULFILLED`."""
    return UNKNOWN if row["amount"] is None else str(bisect_left(PAID_TO_FULFILLED.buckets, row["amount"]))


class Fulfilments(LedgerCollector):
    """Seconds from paid to fulfilled; it begins at the first start, the past is not worth a walk over every key."""

    family = Family("fulfilment", since="fulfilment_since", classify=bucket)

    async def show(self) -> Sequence[Sample]:
        """One histogram."""
        state = [0.0] * PAID_TO_FULFILLED.width
        for row in await self.ledger.totals():
            if row["outcome"] != UNKNOWN:
                state[int(row["outcome"])] += row["events"]
                state[-1] += row["amount"]
        return [PAID_TO_FULFILLED(tuple(state))]


def collectors(settings: Settings) -> list[Collector]:
    """Its collectors: a family each, so that one that cannot be read leaves the others; then the gauges."""
    app = Database(settings.reveal("DATABASE_URL"), application_name="opsctl ledger", read_only=True)
    ops = Database(settings.require_ops(), application_name="opsctl ledger")
    settle = timedelta(seconds=settings.ops_ledger_settle_seconds)
    horizon = timedelta(seconds=settings.ops_ledger_horizon_seconds)
    seconds, slow = settings.ops_ledger_refresh_seconds, settings.ops_ledger_gauges_seconds

    def ledger(family: Family) -> Ledger:
        return Ledger(family, app, ops, horizon=horizon, settle=settle)

    return [
        Webhooks(ledger(Webhooks.family), seconds, app_totals.checkpoint_name(settings.ops_exporter_name)),
        *(kind(ledger(kind.family), seconds) for kind in (Underpaid, Bounces, Fulfilments)),
        contract.Contract(app, min(slow, CONTRACT_SECONDS)),
        reconciliation.Statuses(app, slow),
        reconciliation.Reconciliation(app, slow, settle),
    ]


SUBJECT = Subject(
    name="ledger",
    title="Payments, webhooks, e-mail and reconciliation",
    needs=("DATABASE_URL",),
    metrics=(*METRICS, *reconciliation.METRICS, *contract.METRICS),
    collectors="exporters.ledger:collectors",
    signals=signals.SIGNALS,
    objectives=signals.OBJECTIVES,
    alerts=signals.ALERTS,
)
