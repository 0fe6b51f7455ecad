"""Records: which orders, payments, notifications and reservations are there, and which belong together?"""

from opsctl.boards import order, sql
from opsctl.boards.sql import LIMIT, TIMES, Given, Key, Text
from opsctl.render.board import Board, Choice, Link, Look, Panel, Pick, Row, Source, Sql, TextBox
from opslib.alerting import Unit
from opslib.areas.records import LISTINGS

STORY = Link("order_id", "What happened to this order", order.ADDRESS)
RELATED = Link(
    "order_id", "Everything of this order", "/d/bitloot-records?var-order=${__value.raw}&${__url_time_range}"
)
ORDER = Key("order")
EMAIL = Text("email")


def _table(title: str, means: str, listing: str, text: str, *, columns: str = "*", **units: Unit) -> Panel:
    record = LISTINGS[listing]
    return Panel(
        title=title,
        means=means,
        unit=Unit.MONEY,
        look=Look.TABLE,
        queries=(Sql(Source.APP, sql.page(text, f"{record.time} DESC NULLS LAST, {record.id} DESC", columns)),),
        width=24,
        height=9,
        empty="none in this span of time, with these filters",
        units=units,
        links=(STORY, RELATED),
    )


def _either(**parts: str) -> str:
    """Of several statements with the same columns the one whose condition holds; the others are never begun."""
    return "\nUNION ALL\n".join(
        f"SELECT * FROM (\n{text}\n) {name} WHERE {_WHEN[name]}" for name, text in parts.items()
    )


_WHEN = {
    "newest": f"{ORDER.literal} = '' AND {EMAIL.literal} = ''",
    "by_email": f"{ORDER.literal} = '' AND {EMAIL.literal} <> ''",
    "by_order": f"{ORDER.literal} <> ''",
    "all_newest": f"{ORDER.literal} = ''",
}

ORDERS = _either(
    newest=sql.asking("orders_newest", status=Text("status"), limit=LIMIT, **TIMES),
    by_email=sql.asking("orders_of_email", email=EMAIL, status=Text("status"), limit=LIMIT, **TIMES),
    by_order=sql.asking("order_one", order=ORDER),
)
PAYMENTS = sql.asking(
    "payments_newest",
    status=Key("payment_status"),
    provider=Text("provider"),
    order=ORDER,
    external=Text("external"),
    limit=LIMIT,
    **TIMES,
)
WEBHOOKS_BY = {"outcome": Text("outcome"), "provider": Text("provider"), "error": Text("error"), **TIMES}
WEBHOOKS = _either(
    all_newest=sql.asking("webhooks_newest", limit=LIMIT, **WEBHOOKS_BY),
    by_order=sql.asking(
        "webhooks_about", limit=LIMIT, order=ORDER, externals=Given(f"({order.EXTERNALS})"), **WEBHOOKS_BY
    ),
)
RESERVATIONS = sql.asking("reservations_newest", place=Text("place"), order=ORDER, limit=LIMIT, **TIMES)

BOARD = Board(
    uid="bitloot-records",
    title="Records",
    means="Which orders, payments, notifications and reservations there are. Click an order to see its story.",
    span="7d",  # a customer asks about last week, too
    refresh="5m",
    variables=(
        TextBox("order", "Order", "An order's id; then the four lists show what belongs to it."),
        TextBox("email", "E-mail", "A whole address: its orders are found, the address is never shown."),
        Choice(
            "status",
            "Order status",
            "Status of the orders.",
            Sql(Source.APP, f"SELECT status FROM (\n{sql.asking('orders_by_status')}\n) statuses"),
            any="''",
        ),
        Choice(
            "payment_status",
            "Payment status",
            "Status of the payments.",
            Sql(Source.APP, f"SELECT status FROM (\n{sql.asking('payments_by_status')}\n) statuses"),
            any="''",
        ),
        Pick("provider", "Provider", "Of payments and notifications.", ("nowpayments", "kinguin"), any="''"),
        TextBox("external", "Provider's id", "What the provider calls a payment."),
        Pick(
            "outcome",
            "Outcome",
            "What became of a notification.",
            ("ok", "duplicate", "invalid", "error"),
            any="''",
        ),
        TextBox("error", "Error has", "A part of a notification's error."),
        Pick("place", "Reserved at", "Where a reservation is.", ("inventory", "kinguin"), any="''"),
        Pick("page", "Page", "100 records each, newest first.", tuple(str(n + 1) for n in range(sql.PAGES))),
    ),
    rows=(
        Row(
            "Newest first, 100 a page",
            (
                _table(
                    "Orders",
                    "Orders by creation. The address is masked; search for a whole one above.",
                    "orders",
                    ORDERS,
                    total=Unit.EUR,
                ),
                _table("Payments", "Payments by creation.", "payments", PAYMENTS),
                _table(
                    "Webhook events",
                    "Every call of a provider. A duplicate is its repeat; invalid is a bad signature; error is ours.",
                    "webhooks",
                    WEBHOOKS,
                    # What it says before whose it is: an error must not be off the screen.
                    columns="occurred_at, provider, event_type, external_id, outcome, settled, payment_status, "
                    "claimed_status, error, order_id, attempt_count",
                ),
                _table(
                    "Reservations",
                    "What is set aside: in our inventory, or at Kinguin, where the time is the order's.",
                    "reservations",
                    RESERVATIONS,
                    # Grafana has no type for an interval.
                    columns="order_id, place, reservation_id, state, order_status, reserved_at, "
                    "extract(epoch FROM age)::float8 AS age, cost_eur",
                    age=Unit.SECONDS,
                    cost_eur=Unit.EUR,
                ),
            ),
        ),
    ),
)
