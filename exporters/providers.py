"""Provider balances: is there money to sell with, does the provider answer, how long will the money last?

Invariant: each configured provider answered within the last minutes, and holds more than a few days' spend.
Source: `opslib/areas/balances.py`; the runway comes from `ops.balances`, kept hourly by the job `balance-snapshot`.

Each provider is a collector of its own, so that one's failure leaves the other's balances on the page. What is
remembered (refused calls, past balances) is a third, so that our database's failure leaves both.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from exporters.signals import providers as signals
from opslib.areas.balances import PROVIDERS, Amounts, Provider, most, runway
from opslib.areas.queries import NAMED
from opslib.checkpoint import Checkpoint
from opslib.collector import CHECKPOINT_LAG, Collector, Every
from opslib.errors import OpsError
from opslib.http import BUDGET
from opslib.postgres import Database
from opslib.settings import Settings
from opslib.spec import Counter, Gauge, Sample, Subject
from opslib.tally import Tally

log = structlog.get_logger()

UP = Gauge("bitloot_provider_up", "1 if the provider last answered all we asked, 0 if not.", ("provider",))
BALANCE = Gauge(
    "bitloot_provider_balance", "Funds held at the provider, in units of `currency`.", ("provider", "currency")
)
AGE = Gauge("bitloot_provider_balance_age_seconds", "Seconds since the balance was last read.", ("provider",))
LATENCY = Gauge("bitloot_provider_latency_seconds", "How long the provider's last answer took.", ("provider",))
REMAINING = Gauge(
    "bitloot_provider_rate_limit_remaining", "Calls left in the provider's current window, as it says.", ("provider",)
)
QUOTA_ERRORS = Counter(
    "bitloot_provider_quota_errors_total", "Calls the provider refused because its rate limit was used.", ("provider",)
)
RUNWAY = Gauge(
    "bitloot_provider_runway_days",
    "Days the balance lasts at the spend of the last seven days; absent before a day of history and some spend.",
    ("provider", "currency"),
)

SECONDS = 60.0  # the providers meter calls
RETRY_SECONDS = 10.0  # while one fails; its circuit then rests for thirty
QUESTIONS = 2  # NOWPayments' status and balance
HISTORY_SECONDS = 5.0  # costs nothing while no balance is new and no call was refused
SPEND_OF = timedelta(days=7)  # a week has one weekend


@dataclass(frozen=True, slots=True)
class Reading:
    """Balances as last read.

    Attributes:
        amounts: By currency.
        at: When, in seconds of `time.monotonic`.
    """

    amounts: Amounts
    at: float


class Balances(Collector):
    """One provider's balances.

    Args:
        provider: Which.

    Attributes:
        up: It answered all of the last round.
        reading: The last good one.
    """

    refresh = Every(SECONDS, deadline=QUESTIONS * BUDGET + 1, retry=RETRY_SECONDS)

    def __init__(self, provider: Provider) -> None:
        self.name = f"providers/{provider.name}"
        self.provider = provider
        self.up = False
        self.reading: Reading | None = None

    async def collect(self) -> Sequence[Sample]:
        """Ask. A failure leaves no balance on the page, only the age of the last one."""
        name, client = self.provider.name, self.provider.client
        answered = False
        try:
            amounts = await self.provider.balances()
            answered = True
        finally:
            self.up = answered
        shown = most(amounts)
        self.dropped += len(amounts) - len(shown)
        self.reading = Reading(shown, time.monotonic())
        gauges = [BALANCE(amount, provider=name, currency=currency) for currency, amount in shown.items()]
        if client.latency is not None:
            gauges.append(LATENCY(client.latency, provider=name))
        if client.remaining is not None:
            gauges.append(REMAINING(client.remaining, provider=name))
        return gauges

    def counts(self) -> Iterable[Sample]:
        """Whether it answers, and how old what we know is."""
        yield UP(self.up, provider=self.provider.name)
        if self.reading is not None:
            yield AGE(time.monotonic() - self.reading.at, provider=self.provider.name)

    async def stop(self) -> None:
        """Let go of the connections."""
        await self.provider.client.close()


class History(Collector):
    """What is remembered about the providers: refused calls, and the runway that follows from the hourly balances.

    Args:
        watched: The providers' collectors.
        exporter_name: Whose checkpoint.
        dsn: The ops database, if any; without one there is no runway, and refused calls count from zero.
    """

    name = "providers/history"
    refresh = Every(HISTORY_SECONDS)

    def __init__(self, watched: Sequence[Balances], exporter_name: str, dsn: str | None) -> None:
        self._watched = watched
        self._tally = Tally((QUOTA_ERRORS,), durable_only=dsn is not None)
        self._checkpoint = Checkpoint(f"providers/{exporter_name}", dsn, self._tally)
        self._database = Database(dsn, application_name="opsctl providers", size=2) if dsn else None
        self._counted = dict.fromkeys(watched, -1)  # less than nothing: the series is still to be made
        self._behind_since: float | None = None
        self._known: dict[Balances, Reading] = {}
        self._runways: dict[Balances, list[Sample]] = {}

    async def collect(self) -> Sequence[Sample]:
        """Save what is new; the runway of a provider that does not answer is unknown."""
        await self._count()
        if self._database is not None:
            for each in self._watched:
                if each.reading is not None and each.reading is not self._known.get(each):
                    self._runways[each] = await self._runway(self._database, each.provider.name, each.reading)
                    self._known[each] = each.reading
        return [sample for each in self._watched if each.up for sample in self._runways.get(each, ())]

    async def _count(self) -> None:
        self._notice()
        await self._checkpoint.load()  # before adding: what it holds replaces what is in the tally
        for each, counted in self._counted.items():
            refused = each.provider.client.quota_errors
            if refused > counted:
                self._tally.add(QUOTA_ERRORS, each.provider.name, amount=refused - max(counted, 0))
                self._counted[each] = refused
        await self._checkpoint.save()
        self._behind_since = None

    async def _runway(self, database: Database, provider: str, reading: Reading) -> list[Sample]:
        spend = await database.rows(
            NAMED["balance_spend"].sql, {"provider": provider, "since": datetime.now(UTC) - SPEND_OF}
        )
        return [
            RUNWAY(days, provider=provider, currency=row["currency"])
            for row in spend
            if row["currency"] in reading.amounts
            and (days := runway(reading.amounts[row["currency"]], row["spent"], row["seconds"])) is not None
        ]

    def counts(self) -> Iterable[Sample]:
        """Refused calls as saved, and since when some are not."""
        yield from self._tally.samples()
        if self._checkpoint.kept:
            yield CHECKPOINT_LAG(self._lag(), exporter=self._checkpoint.name)

    def _lag(self) -> float:
        self._notice()
        return 0.0 if self._behind_since is None else time.monotonic() - self._behind_since

    def _notice(self) -> None:
        """Remember when a refused call was first seen that is not saved yet."""
        if self._behind_since is None and any(
            each.provider.client.quota_errors > max(counted, 0) for each, counted in self._counted.items()
        ):
            self._behind_since = time.monotonic()

    async def probe(self) -> None:
        """Does the ops database answer?"""
        if self._database is not None:
            await self._database.ping()

    async def start(self) -> None:
        """Make the database ready to be asked."""
        if self._database is not None:
            await self._database.open()

    async def stop(self) -> None:
        """Save what is counted as far as that is possible, and let go of everything."""
        try:
            await self._count()
        except OpsError as exc:
            log.warning("quota_errors_not_saved", error=str(exc))
        await self._checkpoint.close()
        if self._database is not None:
            await self._database.close()


def collectors(settings: Settings) -> list[Collector]:
    """One for each provider whose key is set, and their memory."""
    watched = [Balances(provider(settings)) for provider in PROVIDERS if settings.has(provider.key)]
    dsn = settings.ops_dsn
    history = History(watched, settings.ops_exporter_name, dsn.get_secret_value() if dsn else None)
    return [*watched, history]


SUBJECT = Subject(
    name="providers",
    title="Providers and balances",
    needs=(),
    needs_one=tuple(provider.key for provider in PROVIDERS),
    metrics=(UP, BALANCE, AGE, LATENCY, REMAINING, QUOTA_ERRORS, RUNWAY),
    collectors="exporters.providers:collectors",
    signals=signals.SIGNALS,
    objectives=signals.OBJECTIVES,
    alerts=signals.ALERTS,
)
