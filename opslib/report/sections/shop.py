"""Orders, payments and keys of a day, against yesterday and the same weekday; what does not add up."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal

from opslib.areas.records import Row
from opslib.errors import OpsError
from opslib.report import numbers
from opslib.report.charts import Bars, Line, Stacked
from opslib.report.model import Column, Finding, Kpi, Level, Section, Table, table
from opslib.report.numbers import Facts
from opslib.report.sources import SETTLE, Period, Sources, reading, total
from opslib.shown import words

PAID = ("paid", "fulfilled")
OUTCOMES = (("ok", "ok"), ("duplicate", "warn"), ("error", "bad"), ("invalid", "dim"))
TONE = {"fulfilled": "ok", "finished": "ok", "paid": "warn", "underpaid": "warn", "failed": "bad", "expired": "dim"}

PROBLEMS: Mapping[str, tuple[str, Level]] = {
    "paid_unfulfilled": ("paid and not fulfilled", Level.BROKEN),
    "payment_finished_order_unmoved": ("payment finished, order still waiting", Level.BROKEN),
    "ipn_dropped": ("notification dropped as a duplicate and never processed", Level.ATTENTION),
    "reservation_leaked": ("inventory reserved for an order that is over", Level.ATTENTION),
    "fulfilled_without_payment": ("fulfilled without any payment", Level.BROKEN),
}
"""The reconciliation's queries: each in words, and how bad one is that has lasted `PATIENCE`."""
PATIENCE = timedelta(minutes=15)
"""As the alerts on them: three times the promise of five minutes."""


def percent(now: Decimal, before: Decimal) -> str:
    """The change in words: `+12 %`; there is no percentage of nothing."""
    if now == before:
        return "unchanged"
    if not before:
        return "was 0"
    share = (now - before) / before * 100
    return f"{share:+.0f} %" if abs(share) >= 1 else f"{share:+.1f} %"


def kpis(sources: Sources, period: Period) -> Section:
    """The numbers on top."""
    section = Section("numbers", "Numbers of the day")
    wanted: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
        ("Orders", "orders", (), ""),
        ("Value ordered", "orders_eur", (), " EUR"),
        ("Value paid", "orders_eur", PAID, " EUR"),
        ("Orders fulfilled", "orders", ("fulfilled",), ""),
        ("Payments finished", "payments", ("finished",), ""),
        ("Underpaid orders", "orders", ("underpaid",), ""),
        ("Keys delivered", "deliveries", (), ""),
        ("E-mails bounced", "email_bounces", (), ""),
    )
    for name, subject, keys, unit in wanted:
        with reading(section, name.lower()):
            value = total(numbers.of(sources, period.last, subject), *keys)
            deltas = [
                (label, _delta(sources, period.last - timedelta(days=back), subject, keys, Decimal(value)))
                for label, back in (("yesterday", 1), ("a week ago", 7))
            ]
            section.kpis.append(Kpi(name, _amount(Decimal(value), unit), deltas))
    section.lead = (
        "By the day they were created, in the state they have now; change against the day before and a week before."
    )
    return section


def _amount(value: Decimal, unit: str) -> str:
    return f"{value:,.2f}{unit}" if unit else f"{value:,.0f}"


def _delta(sources: Sources, day: date, subject: str, keys: tuple[str, ...], now: Decimal) -> str:
    try:
        return percent(now, Decimal(total(numbers.of(sources, day, subject), *keys)))
    except OpsError:
        return "not known"


def orders(sources: Sources, period: Period) -> Section:
    """The funnel, the hours, payments and underpaid."""
    section = Section("orders", "Orders and payments", links=[("Orders", "orders.html"), ("Payments", "payments.html")])
    with reading(section, "orders by status"):
        found = numbers.of(sources, period.last, "orders")
        value = numbers.of(sources, period.last, "orders_eur")
        reached = {
            "Created": total(found),
            "Payment seen": total(found, "confirming", "underpaid", "refunded", *PAID),
            "Paid in full": total(found, "refunded", *PAID),
            "Fulfilled": total(found, "fulfilled"),
        }
        section.charts.append(
            Bars(
                "funnel",
                "How far orders came",
                "Orders created on the day by how far they have come: created, payment seen, paid in full, fulfilled.",
                [(name, int(count), "ok" if name == "Fulfilled" else "main") for name, count in reached.items()],
            )
        )
        section.tables.append(_by_status("Orders by status", found, value))
    with reading(section, "payments by status"):
        payments = numbers.of(sources, period.last, "payments")
        section.charts.append(_bars("payments", "Payments by status", payments))
    with reading(section, "orders by hour"):
        section.charts.append(_hours(sources, period))
    return section


def _by_status(caption: str, found: Facts, value: Facts) -> Table:
    rows = [
        {"status": status, "orders": count, "value": f"{value.get(status, Decimal(0)):,.2f}"}
        for status, count in sorted(found.items(), key=lambda item: -item[1])
    ]
    columns = (
        Column("status", "Status", state=True),
        Column("orders", "Orders", number=True),
        Column("value", "Value, EUR", number=True),
    )
    return table(caption, columns, rows, "No order was created on this day.")


def _bars(name: str, title: str, found: Facts) -> Bars:
    items = [
        (key, int(count), TONE.get(key, "main")) for key, count in sorted(found.items(), key=lambda item: -item[1])
    ]
    return Bars(name, title, f"{title} on the day, as they stand now.", items)


def _hours(sources: Sources, period: Period) -> Line:
    def by_hour(of: Period) -> list[int | None]:
        rows = sources.rows("orders_by_hour", since=of.since, until=of.until)
        found = {row["hour"].hour: int(row["orders"]) for row in rows}
        # An hour that is not over is no hour without orders.
        return [found.get(h, 0) if of.since + timedelta(hours=h) < sources.generated else None for h in range(24)]

    before = Period.day(period.last - timedelta(days=1))
    return Line(
        "hours",
        "Orders by hour",
        "Orders created in each hour of the day, UTC, and of the day before.",
        [f"{hour:02}:00" for hour in range(24)],
        [("The day before", "dim", by_hour(before)), ("This day", "main", by_hour(period))],
    )


def webhooks(sources: Sources, period: Period) -> Section:
    """What became of each call, by provider."""
    section = Section(
        "webhooks",
        "Payment notifications and webhooks",
        lead="Invalid calls are forged or misdirected, errors are ours. What is turned away without a row is not here.",
        links=[("Webhook log", "webhooks.html")],
    )
    with reading(section, "webhook outcomes"):
        by_provider: dict[str, dict[str, Decimal]] = {}
        for key, count in numbers.of(sources, period.last, "webhooks").items():
            provider, _, outcome = key.partition("/")
            by_provider.setdefault(provider, {})[outcome] = count
        names = [name for name, _ in OUTCOMES]
        section.charts.append(
            Stacked(
                "outcomes",
                "Calls by provider and outcome",
                "Webhook calls of the day for each provider, divided by outcome.",
                OUTCOMES,
                [
                    (provider, {name: int(each.get(name, 0)) for name in names})
                    for provider, each in sorted(by_provider.items())
                ],
            )
        )
        columns = (Column("provider", "Provider"), *(Column(name, name.capitalize(), number=True) for name in names))
        rows = [
            {"provider": p, **{name: each.get(name, Decimal(0)) for name in names}}
            for p, each in sorted(by_provider.items())
        ]
        section.tables.append(table("Calls", columns, rows, "Nobody called on this day."))
        if errors := sum(int(each.get("error", 0)) for each in by_provider.values()):
            section.findings.append(Finding(Level.ATTENTION, f"{errors:,} webhook calls ended in an error"))
    return section


def reconciliation(sources: Sources) -> Section:
    """What does not add up, as it stands when the report is made."""
    section = Section(
        "reconciliation",
        "What does not add up",
        lead="As it stands when the report is made, not on the day.",
        links=[("Paid orders", "orders-paid.html"), ("Reservations", "reservations.html")],
    )
    rows: list[Row] = []
    for name, (text, level) in PROBLEMS.items():
        with reading(section, f"whether anything is {text}"):
            (row,) = sources.rows(name, settle=SETTLE)
            age = None if row["oldest_seconds"] is None else timedelta(seconds=row["oldest_seconds"])
            count = row["count"]
            said = "none" if not count else "new" if age is not None and age < PATIENCE else "failed"
            rows.append(
                {"problem": text, "count": count, "age": age, "value": f"{row['value_eur']:,.2f}", "state": said}
            )
            if said == "failed":
                section.findings.append(Finding(level, f"{count:,} {text}, the oldest for {words(age)}"))
    columns = (
        Column("problem", "Problem"),
        Column("count", "How many", number=True),
        Column("age", "Oldest", number=True),
        Column("value", "Value, EUR", number=True),
    )
    if rows:
        section.tables.append(table("Reconciliation", columns, rows))
    return section
