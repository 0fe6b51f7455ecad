"""The shop with all that belongs to it, on servers that run already: opened and closed as one."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from psycopg_pool import AsyncConnectionPool

from demo import orders
from demo.app import App
from demo.app_metrics import AppMetrics
from demo.providers import Kinguin, NowPayments, Resend
from demo.queues import Queues
from demo.shop import Shop
from demo.stories import Counted, Stories
from demo.traffic import Traffic
from demo.truth import Series, Truth, series
from demo.webhooks import Webhooks
from opslib.storage import Storage

CONNECTIONS = 12
"""Of the application: late commits hold some of them for a second."""

YESTERDAY_SECONDS = 2 * 86_400

FORGOTTEN = ("bitloot_paid_to_fulfilled_seconds_count", "bitloot_email_fail_total")
TRACELESS = tuple((("outcome", outcome), ("provider", "kinguin")) for outcome in ("duplicate", "invalid"))


@dataclass(slots=True)
class World:
    """Everything of the application.

    Attributes:
        truth: What really happened in it.
        opened: When it began, Unix seconds.
        yesterdays: Ids of the orders placed before anybody counted.
    """

    truth: Truth
    shop: Shop
    stories: Stories
    queues: Queues
    app: App
    nowpayments: NowPayments
    kinguin: Kinguin
    resend: Resend
    opened: float = field(default_factory=time.time)
    yesterdays: frozenset[str] = frozenset()

    async def live_yesterday(self) -> None:
        """Every kind of story but those of the queues, as if it had happened long before anybody counted.

        What only the application's own counters know of it is lost: it has been restarted since. How long orders
        took was measured by nobody.
        """
        queues, counted = self.stories.queues, self.stories.counted
        self.stories.queues = self.stories.counted = None
        await Traffic(self.stories, self.truth, per_second=50).tell_all()
        self.stories.queues, self.stories.counted = queues, counted
        await self.shop.age(YESTERDAY_SECONDS)
        self.yesterdays = frozenset(self.shop.orders)
        await self.app.restart()
        for of in list(self.truth.counters):
            if of[0] in FORGOTTEN or (of[0] == "bitloot_webhook_total" and of[1] in TRACELESS):
                del self.truth.counters[of]

    def gauges(self) -> dict[Series, float]:
        """What every gauge must show at rest."""
        expected = {**orders.gauges(self.shop.orders.values()), **self.queues.gauges()}
        for name, provider in (("nowpayments", self.nowpayments), ("kinguin", self.kinguin)):
            expected[series("bitloot_provider_up", provider=name)] = 1
            if provider.remaining is not None:
                expected[series("bitloot_provider_rate_limit_remaining", provider=name)] = provider.remaining
            for currency, amount in provider.told.items():
                # NOWPayments writes currencies small, the rest of the world does not.
                expected[series("bitloot_provider_balance", provider=name, currency=currency.upper())] = amount
        return expected


@asynccontextmanager
async def world(
    dsn: str,
    redis_url: str,
    directory: Path,
    *,
    seed: int = 1,
    counted: Counted | None = None,
    storage: Storage | None = None,
) -> AsyncIterator[World]:
    """Open the application on a database that holds its schema, and on a Redis.

    Args:
        dsn: The database, as its owner.
        redis_url: The Redis.
        directory: For logs.
        seed: Of all chance.
        counted: See `Stories`.
        storage: See `Shop`.
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
        shop = Shop(pool, metrics, truth, resend, rng, storage=storage)
        stack.push_async_callback(shop.close)
        await shop.open()
        stories = Stories(shop, Webhooks(pool, metrics, truth), nowpayments, kinguin, resend, rng, counted=counted)
        queues = Queues(redis_url, directory, truth, stories.work)
        stack.push_async_callback(queues.close)
        await queues.open()
        stories.queues = queues
        app = await stack.enter_async_context(App(pool, metrics, queues, shop.orders))
        yield World(truth, shop, stories, queues, app, nowpayments, kinguin, resend)
