"""The providers that hold our money: how each is asked, and what its answer means.

Source: NOWPayments `GET /v1/status` and `GET /v1/balance`, Kinguin ESA `GET /esa/api/v1/balance`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from opslib.errors import SourceError
from opslib.http import Endpoint, ProviderClient
from opslib.settings import Settings

MAX_CURRENCIES = 200
"""Of one provider on the page; NOWPayments knows some 300 coins, a shop holds a handful."""
MAX_NAME = 32
"""Characters of a currency on the page."""
MAX_AMOUNT = 1e15
"""Above this it is no money."""
MIN_HISTORY = 86_400.0
"""Seconds of snapshots a runway needs: less than a day says nothing about a day's spend."""
RUNWAY_SHORT_DAYS = 3
"""Below this the alert calls and the report says so: a bank transfer to Kinguin takes up to two working days."""

Amounts = dict[str, float]


class Provider(ABC):
    """One provider.

    Attributes:
        name: Its label.
        key: The setting that holds its key.
        base: The setting that holds its base URL.
        header: How the key is sent.
    """

    name: ClassVar[str]
    key: ClassVar[str]
    base: ClassVar[str]
    header: ClassVar[str]

    def __init__(self, settings: Settings) -> None:
        self.client = ProviderClient(
            Endpoint(
                name=self.name,
                base_url=settings.reveal(self.base),
                headers={self.header: settings.reveal(self.key)},
                base_setting=self.base,
                key_setting=self.key,
            )
        )

    async def balances(self) -> Amounts:
        """The funds by currency.

        Raises:
            SourceError: The provider is away, refuses us, or answered another shape.
        """
        amounts = self._parse(await self._ask())
        if amounts is None:
            raise SourceError(f"{self.name}: its answer has another shape than documented; has its API changed?")
        return amounts

    @abstractmethod
    async def _ask(self) -> Any: ...

    @staticmethod
    @abstractmethod
    def _parse(answer: Any) -> Amounts | None: ...


class NowPayments(Provider):
    """NOWPayments. Its status page needs no key, so that a wrong key and an outage read differently."""

    name = "nowpayments"
    key = "NOWPAYMENTS_API_KEY"
    base = "NOWPAYMENTS_BASE"
    header = "x-api-key"

    async def _ask(self) -> Any:
        status = await self.client.get("/v1/status")
        if status != {"message": "OK"}:
            raise SourceError(f"{self.name}: its status page does not say OK; look at it")
        return await self.client.get("/v1/balance")

    @staticmethod
    def _parse(answer: Any) -> Amounts | None:
        """Either `{"balances": [{"currency": "btc", "balance": 0.042}]}` or `{"btc": {"amount": 0.042, ...}}`."""
        if not isinstance(answer, dict):
            return None
        entries = answer.get("balances")
        if isinstance(entries, list):
            return _amounts((_field(entry, "currency"), _field(entry, "balance")) for entry in entries)
        return _amounts((currency, _field(entry, "amount")) for currency, entry in answer.items())


class Kinguin(Provider):
    """Kinguin ESA."""

    name = "kinguin"
    key = "KINGUIN_API_KEY"
    base = "KINGUIN_BASE_URL"
    header = "X-Api-Key"

    async def _ask(self) -> Any:
        return await self.client.get("/esa/api/v1/balance")

    @staticmethod
    def _parse(answer: Any) -> Amounts | None:
        """`{"balance": 12.45}`, in EUR."""
        return _amounts([("EUR", _field(answer, "balance"))])


PROVIDERS: tuple[type[Provider], ...] = (NowPayments, Kinguin)


def runway(balance: float, spent: float, seconds: float) -> float | None:
    """Days the balance lasts if spending goes on as it did; None while the history is too short or nothing was spent.

    Args:
        balance: Funds now.
        spent: What went out in the history, in the same unit.
        seconds: How long the history is.
    """
    if seconds < MIN_HISTORY or spent <= 0:
        return None
    return max(balance, 0.0) / (spent / (seconds / 86_400))


def most(amounts: Mapping[str, float]) -> Amounts:
    """At most `MAX_CURRENCIES` of them, those with money first."""
    ordered = sorted(amounts.items(), key=lambda item: (item[1] == 0, item[0]))
    return dict(ordered[:MAX_CURRENCIES])


def _field(entry: Any, name: str) -> Any:
    return entry.get(name) if isinstance(entry, dict) else None


def _amounts(pairs: Iterable[tuple[Any, Any]]) -> Amounts | None:
    """Funds by currency in capitals; None if an entry is no such pair, or a currency comes twice."""
    amounts: Amounts = {}
    for currency, amount in pairs:
        if not isinstance(currency, str) or not isinstance(amount, int | float) or isinstance(amount, bool):
            return None
        # `not <=` also refuses NaN; an int is compared as it is, whatever its size.
        name = currency.strip().upper()[:MAX_NAME]
        if not name or name in amounts or not abs(amount) <= MAX_AMOUNT:
            return None
        amounts[name] = float(amount)
    return amounts
