"""What can happen in the shop, one story per kind of event: every row, outcome and defect of the real application.

A story is a coroutine that plays its events in order. `WEIGHTS` says how often each is told; the driver is `traffic`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bullmq import Job

from demo.orders import Order, Source
from demo.providers import Failure, Kinguin, NowPayments, Resend
from demo.queues import CATALOG, FULFILLMENT, ORPHAN, PAYMENTS, Queues
from demo.shop import Shop, reservation
from demo.webhooks import Webhooks

HOUR_MS = 3_600_000

Counted = Callable[[str], Awaitable[bool]]
"""Waits until the ledger has counted a row of webhook_logs; False when it did not in good time."""


@dataclass(slots=True)
class Stories:
    """All stories, told on one shop.

    Attributes:
        counted: How a story learns that a row was counted; None where nobody counts.
    """

    shop: Shop
    webhooks: Webhooks
    nowpayments: NowPayments
    kinguin: Kinguin
    resend: Resend
    rng: random.Random
    queues: Queues | None = None
    counted: Counted | None = None

    def _source(self) -> Source:
        return self.rng.choice(("custom", "kinguin"))

    def _late(self) -> float:
        """Seconds until a transaction commits: mostly at once, sometimes up to one."""
        return self.rng.random() if self.rng.random() < 0.1 else 0.0  # noqa: PLR2004 - every tenth

    async def _reported(self, order: Order, status: str) -> bool:
        """The provider reports a status and it is processed; False when its processing hangs instead."""
        row = await self.webhooks.received(order.external_id, status, order.id, commit_after=self._late())
        await asyncio.sleep(self.rng.uniform(0, 0.1))
        if await self.webhooks.accept(row, order, status):
            if status == "finished":
                self.nowpayments.balances["btc"] = round(self.nowpayments.balances["btc"] + 0.0001, 8)
            return True
        self.webhooks.drop(order, status)
        return False

    async def _fulfil(self, order: Order, *, failures: int = 0, leak: bool = False) -> None:
        """Fulfilment: by jobs where there are queues."""
        if self.queues is None:
            await self.shop.reserve(order)
            await self.shop.deliver(order, leak=leak)
            return
        await self.queues.add(
            FULFILLMENT,
            "reserve",
            {"order": order.id, "ms": self.rng.randrange(5, 120), "leak": leak},
            failures=failures,
            job_id=f"fulfill-{order.id}",
        )

    async def work(self, job: Job) -> None:
        """Do a fulfilment job that is due to succeed."""
        order = self.shop.orders[job.data["order"]]
        if self.queues is None:
            raise RuntimeError("a job without queues")
        follow = {"order": order.id, "ms": self.rng.randrange(5, 80), "leak": job.data.get("leak", False)}
        if job.name == "reserve":
            await self.shop.reserve(order)
            if order.source == "custom":
                await self.queues.add(FULFILLMENT, "fetch-keys", follow, failures=self.rng.choice((0, 0, 0, 1)))
            else:
                await self.webhooks.kinguin_order(reservation(order), "completed", commit_after=self._late())
                await self.queues.add(FULFILLMENT, "kinguin.order.completed", follow)
        elif job.name in {"fetch-keys", "kinguin.order.completed"}:
            await self.shop.deliver(order, leak=job.data["leak"])
            if order.source == "kinguin":
                self.kinguin.balance = round(self.kinguin.balance - 4.5, 2)

    async def bought(self) -> None:
        """Ordered, paid, delivered; now and then a job needs more than one attempt."""
        order = await self.shop.place(self._source())
        if await self._reported(order, "finished"):
            await self._fulfil(order, failures=self.rng.choice((0, 0, 0, 0, 1, 2)))

    async def job_fails_for_good(self) -> None:
        """Paid, and every attempt to reserve fails: the order stays paid, the job stays failed."""
        order = await self.shop.place(self._source())
        if await self._reported(order, "finished"):
            await self._fulfil(order, failures=5)

    async def kinguin_fails(self) -> None:
        """Kinguin cannot deliver: the order stays paid."""
        order = await self.shop.place("kinguin")
        if await self._reported(order, "finished") and self.queues is not None:
            await self.shop.reserve(order)
            await self.webhooks.kinguin_order(reservation(order), "canceled")
            await self.queues.add(FULFILLMENT, "kinguin.order.failed", {"order": order.id})

    async def paid_twice_reported(self) -> None:
        """The provider repeats itself: the second notification is a duplicate, its row "Processing" for ever."""
        order = await self.shop.place(self._source())
        if await self._reported(order, "finished"):
            await self._fulfil(order)
            await self.webhooks.received(order.external_id, "finished", order.id)
            await self.webhooks.duplicate_noticed()
            self.webhooks.drop(order, "finished")

    async def later_status_dropped(self) -> None:
        """After the first processed notification every later one is dropped: the order sits, and may expire."""
        order = await self.shop.place(self._source())
        if await self._reported(order, self.rng.choice(("waiting", "confirming", "sending"))):
            await self.webhooks.received(order.external_id, "finished", order.id, commit_after=self._late())
            self.webhooks.drop(order, "finished")
            if self.rng.random() < 0.3:  # noqa: PLR2004 - some
                await self.shop.move(order, "expired", "failed")

    async def underpaid(self) -> None:
        """Too little was paid."""
        order = await self.shop.place(self._source())
        await self._reported(order, self.rng.choice(("partially_paid", "underpaid")))

    async def not_paid(self) -> None:
        """The payment fails, expires, is refunded, or goes on."""
        order = await self.shop.place(self._source())
        await self._reported(order, self.rng.choice(("failed", "expired", "refunded", "waiting", "confirming")))

    async def bad_signature(self) -> None:
        """A forged notification."""
        order = await self.shop.place(self._source())
        row = await self.webhooks.received(order.external_id, "finished", order.id)
        if not await self.webhooks.refuse(row):
            self.webhooks.drop(order, "finished")

    async def sold_twice(self) -> None:
        """A bad signature, then the valid notification once more: processed again, a second key is sold.

        The row cannot take the status a second time, so the database refuses it and its text is the error.
        """
        order = await self.shop.place("custom")
        if not await self._reported(order, "finished"):
            return
        await self.shop.reserve(order)
        await self.shop.deliver(order)
        await self._refused(order, "finished")
        row = await self.webhooks.received(order.external_id, "finished", order.id)
        await self.shop.sell_twice(order)
        error = 'duplicate key value violates unique constraint "UQ_webhook_logs_external_type_status"'
        if not await self.webhooks.fail(row, error):
            self.webhooks.drop(order, "finished")

    async def _refused(self, order: Order, status: str) -> None:
        row = await self.webhooks.received(order.external_id, status, order.id)
        if not await self.webhooks.refuse(row):
            self.webhooks.drop(order, status)

    async def unknown_order(self) -> None:
        """A notification for an order nobody placed."""
        stranger = str(self.rng.randrange(10**9, 10**10))
        row = await self.webhooks.received(stranger, "finished", "00000000-0000-0000-0000-000000000000")
        if not await self.webhooks.fail(row, "Order not found: 00000000-0000-0000-0000-000000000000"):
            self.webhooks.drop(None, "finished")

    async def unknown_status(self) -> None:
        """A status the application never heard of."""
        order = await self.shop.place(self._source())
        row = await self.webhooks.received(order.external_id, "wrapping", order.id)
        if not await self.webhooks.fail(row, "Unknown payment status", status="wrapping"):
            self.webhooks.drop(order, "wrapping")

    async def unknown_payment(self) -> None:
        """A payment nobody stored, for a valid order: fulfilled all the same, without a payment row."""
        order = await self.shop.place("custom", payment=False)
        if await self._reported(order, "finished"):
            await self._fulfil(order)

    async def legacy(self) -> None:
        """The old route: a success, or a failure whose text may name the signature."""
        error = self.rng.choice((None, "Invalid HMAC signature", "ECONNREFUSED 127.0.0.1:6379"))
        order = await self.shop.place(self._source())
        await self.webhooks.legacy(order, error=error, commit_after=self._late())
        if error is None:
            await self._fulfil(order)

    async def kinguin_webhooks(self) -> None:
        """Kinguin reports products and orders; some calls leave no row."""
        for _ in range(self.rng.randrange(1, 4)):
            match self.rng.randrange(4):
                case 0:
                    await self.webhooks.kinguin_order(f"KGN-{self.rng.randrange(10**9)}", "processing")
                case 1:
                    await self.webhooks.kinguin_traceless(self.rng.choice(("duplicate", "invalid")))
                case _:
                    await self.webhooks.kinguin_product(commit_after=self._late())

    async def redis_freezes(self) -> None:
        """Redis hangs, and with it a notification: it is counted as a duplicate, then turns out fine."""
        order = await self.shop.place(self._source())
        row = await self.webhooks.received(order.external_id, "finished", order.id)
        self.webhooks.drop(order, "finished")
        if self.counted is not None and await self.counted(row):
            await self.webhooks.accept(row, order, "finished", late=True)
            await self._fulfil(order)

    async def auto_fulfil_off(self) -> None:
        """Paid while automatic fulfilment is off: no job, the order stays paid."""
        order = await self.shop.place(self._source())
        await self._reported(order, "finished")

    async def polled(self) -> None:
        """Paid and fulfilled by a poll of the payment, without any notification."""
        order = await self.shop.place("custom")
        await self.shop.move(order, "paid", "finished")
        await self._fulfil(order)

    async def unmoved(self) -> None:
        """A crash between two writes: the payment is finished, the order still waits."""
        order = await self.shop.place(self._source())
        await self.shop.move(order, "waiting", "finished")

    async def leaked(self) -> None:
        """A crash in the middle of the job: delivered, while the inventory item stays reserved."""
        order = await self.shop.place("custom")
        if await self._reported(order, "finished"):
            await self._fulfil(order, leak=True)

    async def bounced(self) -> None:
        """An e-mail comes back."""
        await self.shop.bounce(self.rng.choice(("hard", "hard", "soft", "complaint")), commit_after=self._late())

    async def mail_fails(self) -> None:
        """The e-mail service is down for one message."""
        self.resend.fail(Failure.ERROR, times=1)
        await self.shop.email("buyer@example.test", "otp")

    async def catalog_syncs(self) -> None:
        """Jobs of the catalog and of payments: with retries, later ones, urgent ones."""
        if self.queues is None:
            return
        ms = self.rng.randrange(5, 60)
        match self.rng.randrange(5):
            case 0 | 1:
                failures = self.rng.choice((0, 0, 0, 0, 1, 2, 3))
                await self.queues.add(CATALOG, "sync-single-product", {"ms": ms}, failures=failures)
            case 2:
                await self.queues.add(CATALOG, "catalog.sync.imported", {"ms": ms}, failures=self.rng.choice((0, 0, 1)))
            case 3:
                soon = self.rng.randrange(200, 2000)
                delay = self.rng.choice((soon, soon, soon, HOUR_MS))
                await self.queues.add(CATALOG, "reprice", {"ms": ms}, delay_ms=delay)
            case _:
                priority = self.rng.choice((0, 1, 10))
                await self.queues.add(PAYMENTS, "poll-payment", {"ms": ms}, priority=priority)

    async def orphaned(self) -> None:
        """Work for the queue nobody serves."""
        if self.queues is not None:
            name = self.rng.choice(("fetch-keys", "order-canceled"))
            await self.queues.add(ORPHAN, name, priority=self.rng.choice((0, 0, 5)))


WEIGHTS: dict[Callable[[Stories], Awaitable[None]], int] = {
    Stories.bought: 24,
    Stories.catalog_syncs: 20,
    Stories.kinguin_webhooks: 8,
    Stories.later_status_dropped: 5,
    Stories.paid_twice_reported: 4,
    Stories.underpaid: 4,
    Stories.not_paid: 6,
    Stories.bad_signature: 4,
    Stories.unknown_order: 3,
    Stories.unknown_status: 2,
    Stories.unknown_payment: 2,
    Stories.legacy: 5,
    Stories.redis_freezes: 2,
    Stories.sold_twice: 2,
    Stories.job_fails_for_good: 2,
    Stories.kinguin_fails: 1,
    Stories.auto_fulfil_off: 2,
    Stories.polled: 2,
    Stories.unmoved: 1,
    Stories.leaked: 2,
    Stories.bounced: 4,
    Stories.mail_fails: 2,
    Stories.orphaned: 3,
}
