"""What happened to one order: its rows, notifications, jobs and keys on one time line, and what that comes to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from psycopg.errors import DataError

from opslib.areas import records
from opslib.areas.records import Connection, Row
from opslib.errors import NotFoundError

if TYPE_CHECKING:
    from opslib.areas.queue_jobs import JobView  # brings Redis, which the database's half does not need

EVENTS = 200
"""Notifications shown of one order at most."""

SAME = timedelta(milliseconds=1)
"""A row whose update is no later than that was never updated."""

_SAID = {
    "ok": "taken",
    "duplicate": "dropped as a duplicate",
    "invalid": "refused",
    "error": "broke",
    "in flight": "not decided yet",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened.

    Attributes:
        at: When; None where nobody noted it.
        area: order, payment, webhook, reservation, job or key.
        what: In words.
        state: The word that says how it went.
    """

    at: datetime | None
    area: str
    what: str
    state: str = ""


@dataclass(slots=True)
class Story:
    """Everything known of one order. Rows are those of the named queries.

    Attributes:
        jobs: Of the queues that were looked through; completed jobs are usually gone.
    """

    order: Row
    items: Sequence[Row]
    payments: Sequence[Row]
    webhooks: Sequence[Row]
    reservations: Sequence[Row]
    keys: Sequence[Row]
    jobs: list[JobView] = field(default_factory=list)

    def moments(self) -> list[Moment]:
        """All that happened, in order; what has no time comes last."""
        order_id = str(self.order["order_id"])
        told = [*self._rows(), *(moment for job in self.jobs for moment in _job(job, order_id))]
        return sorted(told, key=lambda moment: (moment.at is None, moment.at or self.order["created_at"]))

    def _rows(self) -> Iterator[Moment]:
        order = self.order
        yield Moment(order["created_at"], "order", f"placed, {_money(order['total'])} EUR, {order['source']}")
        if order["updated_at"] - order["created_at"] > SAME:
            yield Moment(order["updated_at"], "order", "became", order["status"])
        for payment in self.payments:
            price = (
                f", {_money(payment['price_amount'])} {payment['price_currency']}" if payment["price_amount"] else ""
            )
            name = f"{payment['provider']} {payment['external_id']}"
            yield Moment(payment["created_at"], "payment", f"requested at {name}{price}")
            if payment["updated_at"] - payment["created_at"] > SAME:
                yield Moment(payment["updated_at"], "payment", f"{name} became", payment["status"])
        for event in self.webhooks:
            says = event["payment_status"] or event["claimed_status"]
            text = f"{event['event_type']}{f' says {says}' if says else ''}"
            outcome = event["outcome"] if event["settled"] else "in flight"
            yield Moment(event["occurred_at"], "webhook", f"{text}: {event['error'] or _SAID[outcome]}", outcome)
        for kept in self.reservations:
            # Kinguin's has no time of its own: the view gives the order's, the earliest it can have been.
            where = "at kinguin, now or later" if kept["place"] == "kinguin" else f"in our {kept['place']}"
            text = f"{kept['reservation_id']} set aside {where}"
            yield Moment(kept["reserved_at"], "reservation", text, kept["state"])
        for key in self.keys:
            yield Moment(key["created_at"], "key", f"handed out for item {_short(key['item_id'])}", "delivered")
            if key["viewed_at"]:
                yield Moment(key["viewed_at"], "key", f"opened; {key['download_count']} downloads")

    def finding(self, now: datetime) -> tuple[str, str]:
        """What it comes to: `ok`, `waiting` or `failed`, and one sentence with what to do.

        Args:
            now: The present, for ages.
        """
        status = self.order["status"]
        if status == "fulfilled":
            return self._fulfilled()
        if status == "paid":
            return self._paid(now)
        if status in ("created", "waiting", "confirming", "underpaid", "expired", "failed") and (why := self._lost()):
            return "failed", why
        if status in ("created", "waiting", "confirming"):
            return "waiting", f"not paid yet, for {_span(now - self.order['created_at'])}"
        return "ok", f"over: {status}"

    def _lost(self) -> str:
        """What the provider said of an unpaid order, and the application lost."""
        if any(payment["status"] == "finished" for payment in self.payments):
            return f"the payment is finished and the order still {self.order['status']}: move it in the admin API"
        done = {event["payment_status"] for event in self.webhooks if event["outcome"] == "ok"}
        for event in self.webhooks:
            if event["outcome"] == "duplicate" and event["claimed_status"] not in done:
                said = f"the provider said {event['claimed_status']}, and the application dropped it as a duplicate"
                return f"{said}: look the payment up"
            if event["outcome"] == "error" and not done:
                return f"a notification failed ({event['error']}): have the provider send it again"
        return ""

    def _fulfilled(self) -> tuple[str, str]:
        wanted, given = sum(item["quantity"] for item in self.items), len(self.keys)
        if given > wanted:
            return "failed", f"{given} keys were handed out for {wanted} sold: somebody got one for nothing"
        if given < wanted:
            return "failed", f"fulfilled with {given} keys for {wanted} sold"
        if not self.payments:
            return "failed", "fulfilled, and no payment is stored: was it ever paid?"
        if any(kept["place"] == "inventory" and kept["state"] == "reserved" for kept in self.reservations):
            return "failed", "delivered, and an inventory item is still reserved for it: release it"
        return "ok", f"paid and delivered, {given} of {wanted} keys"

    def _paid(self, now: datetime) -> tuple[str, str]:
        since = _span(now - self.order["updated_at"])
        broken = [job for job in self.jobs if job.state == "failed"]
        if broken:
            job = broken[-1]
            return "failed", (
                f"paid {since} ago, and its job failed for good ({job.reason}): "
                f"opsctl queues retry {job.queue} {job.id} --reason …"
            )
        if self.jobs:
            return "waiting", f"paid {since} ago, and under way: {self.jobs[-1].name} is {self.jobs[-1].state}"
        return "failed", f"paid {since} ago, and no job is at it: retry its fulfilment in the admin API"


def _job(job: JobView, order_id: str) -> Iterator[Moment]:
    name = f"{job.name} ({job.queue} {job.id.replace(order_id, _short(order_id) + '…')})"
    yield Moment(job.added_at, "job", f"{name} added")
    if job.finished_at:
        tries = f"attempt {job.attempts_made} of {job.attempts}"
        yield Moment(job.finished_at, "job", f"{name}: {job.reason or 'done'}, {tries}", job.state)
    elif job.started_at:
        tries = f"{job.attempts_made} of {job.attempts} attempts made"
        yield Moment(job.started_at, "job", f"{name}: last attempt began, {tries}", job.state)


def _money(amount: Any) -> str:
    return f"{amount:.2f}"


def _short(id_: Any) -> str:
    return str(id_)[:8]


def _span(passed: timedelta) -> str:
    minutes = int(passed.total_seconds() // 60)
    if minutes < 1:
        return f"{passed.total_seconds():.0f} s"
    days, hours = divmod(minutes // 60, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def read(connection: Connection, order_id: str) -> Story:
    """The story as the database tells it; jobs are Redis's to add.

    Raises:
        NotFoundError: There is no such order.
    """
    what = f"order {order_id}"
    try:
        order = records.one(connection, "order_one", what, order=order_id)
    except DataError as exc:  # no uuid, say
        raise NotFoundError(f"there is no {what}: its id is not even of the kind this shop gives") from exc
    key = str(order["order_id"])
    payments = records.rows(connection, "payments_newest", order=key, limit=EVENTS)
    names = [str(payment["external_id"]) for payment in payments]
    if order["reservation_id"]:
        names.append(order["reservation_id"])
    return Story(
        order=order,
        items=records.rows(connection, "order_items", order=key),
        payments=payments,
        webhooks=records.rows(connection, "webhooks_about", order=key, externals=names, limit=EVENTS),
        reservations=records.rows(connection, "reservations_newest", order=key, limit=EVENTS),
        keys=records.rows(connection, "order_deliveries", order=key),
    )
