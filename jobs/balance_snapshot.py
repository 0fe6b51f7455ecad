"""Keep each provider's balance once an hour: what the runway is computed from.

Invariant: of every provider that answered there is a balance no older than an hour and a half.
Source: `opslib/areas/balances.py`; kept in `ops.balances`, read by `exporters/providers.py`.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel

from opslib.areas.balances import PROVIDERS, Amounts, Provider, most
from opslib.errors import JobError, SourceError
from opslib.run import Run
from opslib.session import session
from opslib.spec import Cron, Job, NoParams

KEEP = timedelta(days=90)
"""The runway needs a week, a person who asks where the money went a quarter; trends live in the daily facts."""

JOB = Job(
    name="balance-snapshot",
    title="Provider balances, hourly",
    schedule=Cron("7 * * * *"),  # off the full hour, when everybody asks
    max_age=3 * 3600,
    timeout=120,
    retries=2,
    retry_after=60,  # a provider that just failed rests for half a minute
    needs=("DATABASE_URL",),
)


class Result(BaseModel):
    """What was kept.

    Attributes:
        kept: Balances written, by provider; one less than an hour old is not written again.
        pruned: Balances forgotten.
    """

    kept: dict[str, int]
    pruned: int


def run(run: Run, params: NoParams) -> Result:
    """Ask every provider whose key is set, keep what they say.

    Raises:
        JobError: A provider did not answer; what the others said is kept.
        SourceError: Our database is away.
    """
    del params
    providers = [provider for provider in PROVIDERS if run.settings.has(provider.key)]
    kept: dict[str, int] = {}
    failures: list[str] = []
    with session(run.settings.require_ops(), JOB.name) as connection:
        for number, provider in enumerate(providers):
            run.progress(number, len(providers), unit="providers", note=provider.name)
            try:
                amounts = most(asyncio.run(_ask(provider(run.settings))))
            except SourceError as exc:
                failures.append(str(exc))
                continue
            rows = connection.execute(
                """SELECT ops.balance_snapshot(%s, currency, amount::numeric) AS kept
                   FROM unnest(%s::text[], %s::float8[]) AS read (currency, amount)""",
                # In one order everywhere: the function locks each currency in turn.
                (provider.name, sorted(amounts), [amounts[currency] for currency in sorted(amounts)]),
            )
            kept[provider.name] = sum(row["kept"] for row in rows)
        pruned = connection.execute("SELECT ops.balances_prune(%s) AS pruned", (datetime.now(UTC) - KEEP,)).fetchall()[
            0
        ]["pruned"]
    if failures:
        raise JobError("; ".join(failures))
    return Result(kept=kept, pruned=pruned)


async def _ask(provider: Provider) -> Amounts:
    try:
        return await provider.balances()
    finally:
        await provider.client.close()
