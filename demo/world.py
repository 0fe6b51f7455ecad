"""The shop with all that belongs to it, on servers that run already: opened and closed as one."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg_pool import AsyncConnectionPool

from demo import orders
from demo.app import App
from demo.app_metrics import AppMetrics
from demo.providers import Kinguin, NowPayments, Resend
from demo.queues import Queues
from demo.shop import Shop
from demo.stories import Counted, Stories
from demo.truth import Series, Truth, series
from demo.webhooks import Webhooks

CONNECTIONS = 12
"""Of the application: late commits hold some of them for a second."""


@dataclass(slots=True)
class World:
    """Everything of the application.

    Attributes:
        truth: What really happened in it.
    """

    truth: Truth
    shop: Shop
    stories: Stories
    queues: Queues
    app: App
    nowpayments: NowPayments
    kinguin: Kinguin
    resend: Resend

    def gauges(self) -> dict[Series, float]:
        """What every gauge must show at rest."""
        balances = {
            series("bitloot_provider_balance", provider="nowpayments", currency=currency): amount
            for currency, amount in self.nowpayments.balances.items()
        }
        return {
            **orders.gauges(self.shop.orders.values()),
            **self.queues.gauges(),
            **balances,
            series("bitloot_provider_balance", provider="kinguin", currency="eur"): self.kinguin.balance,
            series("bitloot_provider_up", provider="nowpayments"): 1,
            series("bitloot_provider_up", provider="kinguin"): 1,
        }


@asynccontextmanager
async def world(
    dsn: str, redis_url: str, directory: Path, *, seed: int = 1, counted: Counted | None = None
) -> AsyncIterator[World]:
    """Open the application on a database that holds its schema, and on a Redis.

    Args:
        dsn: The database, as its owner.
        redis_url: The Redis.
        directory: For logs.
        seed: Of all chance.
        counted: See `Stories`.
    """
    rng = random.Random(seed)
    truth, metrics = Truth(), AppMetrics()
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            AsyncConnectionPool(dsn, min_size=2, max_size=CONNECTIONS, open=False, name="application")
        )
        nowpayments = await stack.enter_async_context(NowPayments())
        kinguin = await stack.enter_async_context(Kinguin())
        resend = await stack.enter_async_context(Resend())
        shop = Shop(pool, metrics, truth, resend, rng)
        stack.push_async_callback(shop.close)
        await shop.open()
        stories = Stories(shop, Webhooks(pool, metrics, truth), resend, rng, counted=counted)
        queues = Queues(redis_url, directory, truth, stories.work)
        stack.push_async_callback(queues.close)
        await queues.open()
        stories.queues = queues
        app = await stack.enter_async_context(App(pool, metrics))
        yield World(truth, shop, stories, queues, app, nowpayments, kinguin, resend)
