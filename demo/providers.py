"""Fake NOWPayments, Kinguin ESA and Resend over real HTTP: the documented shapes, and failures on demand.

    async with NowPayments() as provider:
        provider.fail(Failure.RATE_LIMITED, times=2)

Each listens on a port of its own, so that one can be stopped (refused) while the others live.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Literal
from uuid import uuid4

from aiohttp import web

from demo.http import HttpServer

RATE_LIMIT = 600
"""Calls NOWPayments lets us make in its window; our fake never refills it, so that the number is predictable."""

RETRY_AFTER_SECONDS = 1


class Failure(StrEnum):
    """What may go wrong on the other side."""

    ERROR = "500"
    RATE_LIMITED = "429 with Retry-After"
    HANG = "no answer"
    RESET = "connection reset"
    MALFORMED = "JSON cut short"
    WRONG_SHAPE = "JSON of another shape"
    EMPTY = "200 without a body"


class Provider(HttpServer):
    """What the three have in common: authentication, failures on demand, and a memory of what was asked.

    Attributes:
        key: The API key it accepts.
        answered: How many answers it gave, by HTTP status; resets and hangs have none.
        told: The balances it last told anybody, by currency.
        remaining: Its rate limit's rest, None where the provider sends no such header.
    """

    key_header = "x-api-key"
    limited = False

    def __init__(self, key: str = "") -> None:
        super().__init__()
        self.key = key or uuid4().hex
        self.answered: Counter[int] = Counter()
        self.told: dict[str, float] = {}
        self.remaining: int | None = RATE_LIMIT if self.limited else None
        self._failures: deque[Failure] = deque()
        self._always: Failure | None = None
        self._override: Callable[[], web.StreamResponse] | None = None

    def fail(self, failure: Failure, times: int | None = None) -> None:
        """Let the next `times` calls fail so; None: every call until `heal`."""
        if times is None:
            self._always = failure
        else:
            self._failures.extend([failure] * times)

    def answer(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        """Give exactly this answer to every call until `heal`."""
        self._override = lambda: web.Response(status=status, text=body, headers=headers)

    def heal(self) -> None:
        """Answer properly again."""
        self._failures.clear()
        self._always = None
        self._override = None

    def accepts(self, request: web.Request) -> bool:
        """Whether the caller showed the key."""
        return request.headers.get(self.key_header) == self.key

    def application(self) -> web.Application:
        """Routes of the provider behind the common behaviour."""
        app = web.Application(middlewares=[self._behave])
        self.routes(app)
        return app

    @abstractmethod
    def routes(self, app: web.Application) -> None:
        """Add what the provider answers when all is well."""

    @web.middleware
    async def _behave(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.remaining is not None:
            self.remaining = max(self.remaining - 1, 0)
        response = await self._respond(request, handler)
        if self.remaining is not None:
            response.headers.update(
                {"X-RateLimit-Limit": str(RATE_LIMIT), "X-RateLimit-Remaining": str(self.remaining)}
            )
        self.answered[response.status] += 1
        return response

    async def _respond(self, request: web.Request, handler: Any) -> web.StreamResponse:
        failure = self._failures.popleft() if self._failures else self._always
        if failure is not None:
            return await _failed(failure, request)
        if self._override is not None:
            return self._override()
        if not self.accepts(request):
            return web.json_response({"message": "Invalid API key"}, status=401)
        answer: web.StreamResponse = await handler(request)
        return answer


async def _failed(failure: Failure, request: web.Request) -> web.StreamResponse:
    match failure:
        case Failure.ERROR:
            return web.json_response({"message": "Internal server error"}, status=500)
        case Failure.RATE_LIMITED:
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            return web.json_response({"message": "Too many requests"}, status=429, headers=headers)
        case Failure.HANG:
            await asyncio.Event().wait()
        case Failure.RESET:
            if request.transport is not None:
                request.transport.abort()
        case Failure.MALFORMED:
            return web.Response(text='{"balance": 12.', content_type="application/json")
        case Failure.WRONG_SHAPE:
            return web.json_response({"data": {"items": []}})
        case Failure.EMPTY:
            return web.Response()
    # Reached after a reset only: the caller is gone, whatever is returned.
    raise web.HTTPServiceUnavailable


class NowPayments(Provider):
    """NOWPayments: balances in two documented shapes, status, payments.

    Attributes:
        balances: Funds by currency.
        pending: Funds not yet usable, by currency (second shape only).
        shape: "list" is `{"balances": [..]}`, "map" is `{"btc": {..}}`.
        payments: Payment status by payment id.
    """

    limited = True

    def __init__(self, key: str = "") -> None:
        super().__init__(key)
        self.balances: dict[str, float] = {"btc": 0.042, "eth": 1.5, "usdttrc20": 815.25}
        self.shape: Literal["list", "map"] = "list"
        self.payments: dict[str, dict[str, Any]] = {}

    def routes(self, app: web.Application) -> None:
        """Balance, status, one payment."""
        app.router.add_get("/v1/balance", self._balance)
        app.router.add_get("/v1/status", self._status)
        app.router.add_get("/v1/payment/{id}", self._payment)

    def accepts(self, request: web.Request) -> bool:
        """The status page asks for no key."""
        return request.path == "/v1/status" or super().accepts(request)

    async def _balance(self, _: web.Request) -> web.Response:
        self.told = dict(self.balances)
        if self.shape == "list":
            entries = [{"currency": currency, "balance": amount} for currency, amount in self.balances.items()]
            return web.json_response({"balances": entries})
        return web.json_response(
            {currency: {"amount": amount, "pendingAmount": 0} for currency, amount in self.balances.items()}
        )

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response({"message": "OK"})

    async def _payment(self, request: web.Request) -> web.Response:
        payment = self.payments.get(request.match_info["id"])
        if payment is None:
            return web.json_response({"message": "Payment not found"}, status=404)
        return web.json_response(
            {
                "pay_address": "demo-address",
                "price_amount": 10,
                "price_currency": "eur",
                "pay_amount": 0.0002,
                "actually_paid": 0.0002,
                "pay_currency": "btc",
                **payment,
            }
        )


class Kinguin(Provider):
    """Kinguin ESA: one balance in EUR, and no rate-limit headers.

    Attributes:
        balance: Funds in EUR.
    """

    def __init__(self, key: str = "") -> None:
        super().__init__(key)
        self.balance = 512.45

    def routes(self, app: web.Application) -> None:
        """The balance."""
        app.router.add_get("/esa/api/v1/balance", self._balance)

    async def _balance(self, _: web.Request) -> web.Response:
        self.told = {"eur": self.balance}
        return web.json_response({"balance": self.balance})


class Resend(Provider):
    """Resend: takes e-mails.

    Attributes:
        sent: How many it took.
    """

    key_header = "Authorization"

    def __init__(self, key: str = "") -> None:
        super().__init__(key)
        self.sent = 0

    def accepts(self, request: web.Request) -> bool:
        """A bearer token."""
        return request.headers.get(self.key_header) == f"Bearer {self.key}"

    def routes(self, app: web.Application) -> None:
        """One e-mail."""
        app.router.add_post("/emails", self._send)

    async def _send(self, request: web.Request) -> web.Response:
        message = await request.json()
        if not {"from", "to", "subject"} <= message.keys():
            return web.json_response({"name": "missing_required_field"}, status=422)
        self.sent += 1
        return web.json_response({"id": str(uuid4())})
