"""Orders as the shop knows them: what a status of the payment provider makes of an order, and the model of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from demo.truth import Series, series

Source = Literal["custom", "kinguin"]

AFTER_IPN = {
    "waiting": ("waiting", "waiting"),
    "confirming": ("confirming", "waiting"),
    "sending": ("confirming", "waiting"),
    "finished": ("paid", "finished"),
    "partially_paid": ("underpaid", "underpaid"),
    "underpaid": ("underpaid", "underpaid"),
    "failed": ("failed", "failed"),
    "expired": ("expired", "failed"),
    "refunded": ("failed", "failed"),
}
"""Order and payment status after the provider reported a status."""

OVER = {"fulfilled", "failed", "expired", "refunded", "cancelled"}
UNPAID = {"created", "waiting", "confirming", "underpaid", "expired", "failed"}
MOVABLE = {"created", "waiting", "confirming"}


@dataclass(slots=True)
class Order:
    """One order, in step with its rows.

    Attributes:
        total_cents: Its value in EUR cents.
        payment_id: Its payment row; None where there is none.
        external_id: The provider's name of the payment.
        reported: What the provider said and was processed, whichever way it came.
        reported_by_ipn: What of that a notification's row says; the old route and the polls leave no status in a row.
        dropped: What the provider said and was dropped as a duplicate.
        leaked_cents: Cost of an inventory item still reserved for it.
    """

    id: str
    email: str
    source: Source
    total_cents: int
    external_id: str
    item_ids: list[str]
    payment_id: str | None = None
    status: str = "created"
    payment_status: str = "created"
    reported: set[str] = field(default_factory=set)
    reported_by_ipn: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    leaked_cents: int | None = None

    def problems(self) -> Iterator[tuple[str, int]]:
        """What is wrong with it, and what that is worth in cents."""
        if self.status == "paid":
            yield "paid_unfulfilled", self.total_cents
        if self.payment_id and self.payment_status == "finished" and self.status in MOVABLE:
            yield "payment_finished_order_unmoved", self.total_cents
        if self.status in UNPAID and self.dropped - self.reported:
            yield "ipn_dropped", self.total_cents
        if self.leaked_cents is not None and self.status in OVER:
            yield "reservation_leaked", self.leaked_cents
        if self.payment_id is None and self.status == "fulfilled":
            yield "fulfilled_without_payment", self.total_cents


PROBLEMS = (
    "paid_unfulfilled",
    "payment_finished_order_unmoved",
    "ipn_dropped",
    "reservation_leaked",
    "fulfilled_without_payment",
)


def gauges(orders: Iterable[Order]) -> dict[Series, float]:
    """Orders and payments by status and the reconciliation problems, as they must show at rest."""
    orders = list(orders)
    expected: dict[Series, float] = {}
    for status, count in Counter(order.status for order in orders).items():
        expected[series("bitloot_orders", status=status)] = count
    for status, count in Counter(order.payment_status for order in orders if order.payment_id).items():
        expected[series("bitloot_payments", status=status)] = count
    found = [problem for order in orders for problem in order.problems()]
    for name in PROBLEMS:
        worth = [cents for problem, cents in found if problem == name]
        expected[series("bitloot_reconciliation_orders", problem=name)] = len(worth)
        expected[series("bitloot_reconciliation_value_eur", problem=name)] = sum(worth) / 100
    return expected
