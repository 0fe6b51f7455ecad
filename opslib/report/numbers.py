"""The numbers of a day: final facts where there are any, else counted from the rows by the same named queries."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal

from opslib.report.sources import Period, Sources

Facts = Mapping[str, Decimal]

OF_SUBJECT = {
    "orders": "facts_orders",
    "orders_eur": "facts_orders",
    "payments": "facts_payments",
    "webhooks": "facts_webhooks",
    "email_bounces": "facts_bounces",
    "deliveries": "facts_deliveries",
    "job_runs": "facts_runs",
}
"""The query each subject is counted by."""


def of(sources: Sources, day: date, subject: str) -> Facts:
    """A subject's facts of one day by key: empty when nothing happened.

    A day that is not final is counted now: what was written of it last night may be behind.

    Raises:
        OpsError: They can be had from nowhere.
    """
    final = sources.once("fact_days", lambda: {row["day"] for row in sources.rows("facts_days") if row["final"]})
    if day in final:
        return kept(sources, day).get(subject, {})
    query = OF_SUBJECT[subject]
    period = Period.day(day)
    rows = sources.once(f"{query} {day}", lambda: sources.rows(query, since=period.since, until=period.until))
    return {row["key"]: row["value"] for row in rows if row["subject"] == subject}


def kept(sources: Sources, day: date) -> Mapping[str, dict[str, Decimal]]:
    """What is written of a day, by subject and key.

    Raises:
        OpsError: It cannot be read.
    """
    rows = sources.once(f"facts {day}", lambda: sources.rows("facts_between", first=day, last=day))
    found: dict[str, dict[str, Decimal]] = {}
    for row in rows:
        found.setdefault(row["subject"], {})[row["key"]] = row["value"]
    return found


def counted(sources: Sources, day: date, subject: str) -> Facts | None:
    """How far a counter went on a day, by key: what was read after it, less what was read after the day before.

    None where one of the two readings was never taken. The job `cleanup` takes them, in the night that follows; of a
    day whose night is not over the counter as it stands now is the second reading.

    Raises:
        OpsError: They cannot be read.
    """
    before = kept(sources, day - timedelta(days=1)).get(subject)
    after = kept(sources, day).get(subject)
    if after is None and day >= sources.generated.date():
        rows = sources.once("readings", lambda: sources.rows("facts_readings"))
        after = {row["key"]: row["value"] for row in rows if row["subject"] == subject}
    if before is None or not after:
        return None
    # A counter that is gone starts anew: what it shows is what it counted.
    return {
        key: value - before[key] if value >= before.get(key, Decimal(0)) and key in before else value
        for key, value in after.items()
    }
