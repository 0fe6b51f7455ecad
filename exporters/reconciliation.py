"""Where money and goods disagree: orders and payments by status, and the five ways they get stuck.

Invariant: every problem is zero, or somebody knows since when and how much it is worth.
Source: the canonical views, on a slow clock: these are questions about the present, asked of whole tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from opslib.areas.queries import NAMED
from opslib.database_collector import DatabaseCollector
from opslib.postgres import Database
from opslib.spec import Gauge, Sample

ORDERS = Gauge("bitloot_orders", "Orders by status.", ("status",))
PAYMENTS = Gauge("bitloot_payments", "Payments by status.", ("status",))
PROBLEM = Gauge("bitloot_reconciliation_orders", "Orders in disagreement, by problem.", ("problem",))
OLDEST = Gauge(
    "bitloot_reconciliation_oldest_age_seconds",
    "Age of the oldest such order; absent when there is none.",
    ("problem",),
)
VALUE = Gauge("bitloot_reconciliation_value_eur", "What those orders are worth, in EUR.", ("problem",))
METRICS = (ORDERS, PAYMENTS, PROBLEM, OLDEST, VALUE)

# Each is a named query of that name.
PROBLEMS = (
    "paid_unfulfilled",
    "payment_finished_order_unmoved",
    "ipn_dropped",
    "reservation_leaked",
    "fulfilled_without_payment",
)


class Statuses(DatabaseCollector):
    """Orders and payments by status."""

    name = "ledger/statuses"

    async def collect(self) -> Sequence[Sample]:
        """Count both tables."""
        orders = await self._database.rows(NAMED["orders_by_status"].sql)
        payments = await self._database.rows(NAMED["payments_by_status"].sql)
        return [
            *(ORDERS(row["count"], status=row["status"]) for row in orders),
            *(PAYMENTS(row["count"], status=row["status"]) for row in payments),
        ]


class Reconciliation(DatabaseCollector):
    """The five problems: count, age, value.

    Args:
        app: The application's database.
        seconds: Between two refreshes.
        settle: Age at which an undecided notification counts as dropped.
    """

    name = "ledger/reconciliation"

    def __init__(self, app: Database, seconds: float, settle: timedelta) -> None:
        super().__init__(app, seconds)
        self._settle = settle

    async def collect(self) -> Sequence[Sample]:
        """Ask each of them."""
        samples: list[Sample] = []
        for problem in PROBLEMS:
            (row,) = await self._database.rows(NAMED[problem].sql, {"settle": self._settle})
            samples += [PROBLEM(row["count"], problem=problem), VALUE(row["value_eur"], problem=problem)]
            if row["oldest_seconds"] is not None:
                samples.append(OLDEST(row["oldest_seconds"], problem=problem))
        return samples
