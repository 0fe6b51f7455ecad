"""`opsctl balances`: what lies at the providers, as last noted, and how long it lasts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from opsctl.kinds import reads
from opsctl.output import Column, Output, printed
from opslib import settings
from opslib.areas.balances import runway
from opslib.areas.queries import NAMED
from opslib.session import Connection, session

SPEND_OF = timedelta(days=7)  # a week has one weekend
DAY = 86_400


@click.group()
def balances() -> None:
    """Balances at the providers, noted hourly by the job balance-snapshot."""


@balances.command("list")
@printed
@reads
def list_(output: Output) -> None:
    """Show the last balance noted of each currency, what a day of the last week cost, and how long it lasts.

    To note them now: `opsctl jobs enqueue balance-snapshot --wait`.
    """
    now = datetime.now(UTC)
    with session(settings.load().require_ops(), "balances") as connection:
        rows = list(_rows(connection, now))
    output.rows(
        rows,
        (
            *("provider", "currency", Column("amount", "Balance"), Column("taken_at", "Noted (UTC)"), "age"),
            *(Column("spent_a_day", "Spent a day"), Column("lasts", "Lasts")),
        ),
        nothing="no balance was noted yet: `opsctl jobs enqueue balance-snapshot`",
    )


def _rows(connection: Connection, now: datetime) -> Iterator[dict[str, Any]]:
    for row in connection.execute(NAMED["balances_last"].sql, {"until": now}).fetchall():
        spend = connection.execute(
            NAMED["balance_spend"].sql, {"provider": row["provider"], "since": now - SPEND_OF}
        ).fetchall()
        week = next((each for each in spend if each["currency"] == row["currency"]), None)
        days = runway(float(row["amount"]), week["spent"], week["seconds"]) if week else None
        yield {
            **row,
            "age": now - row["taken_at"],
            "spent_a_day": round(week["spent"] / week["seconds"] * DAY, 2) if week and days is not None else None,
            "lasts": None if days is None else timedelta(days=days),
        }
