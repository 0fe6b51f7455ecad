"""The shop's own doings: orders are placed, reserved, delivered; e-mails go out and bounce.

Every method leaves the rows the real application leaves and keeps the model of each order in step with them.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from datetime import timedelta
from http import HTTPStatus
from uuid import uuid4

import aiohttp
from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from demo.app_metrics import AppMetrics
from demo.orders import Order, Source
from demo.providers import Resend
from demo.truth import Truth
from opslib.storage import Storage

ADMIN_ID = "00000000-0000-4000-8000-00000000ad31"
ADMIN_EMAIL = "admin@example.test"

PRODUCT_COST_CENTS = 450
"""What an inventory item cost us."""


class Shop:
    """The application behind its receivers.

    Args:
        pool: Its database.
        metrics: Its own counters.
        truth: Is told what happened.
        resend: Sends its e-mails.
        rng: Source of all chance.
        storage: Where it puts what customers bought; None: nowhere.

    Attributes:
        orders: Every order there is.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool,
        metrics: AppMetrics,
        truth: Truth,
        resend: Resend,
        rng: random.Random,
        *,
        storage: Storage | None = None,
    ) -> None:
        self._pool = pool
        self._metrics = metrics
        self._truth = truth
        self._resend = resend
        self._rng = rng
        self._storage = storage
        self._products: list[str] = []
        self._http: aiohttp.ClientSession | None = None
        self.orders: dict[str, Order] = {}

    async def open(self) -> None:
        """Fill the shelves."""
        self._http = aiohttp.ClientSession()
        async with self._pool.connection() as connection:
            for number in range(5):
                rows = await connection.execute(
                    """INSERT INTO products (title, "sourceType", "isPublished", price, currency)
                       VALUES (%s, %s, true, 9.99, 'EUR') RETURNING id::text""",
                    (f"Game {number}", "kinguin" if number % 2 else "custom"),
                )
                self._products += [row[0] for row in await rows.fetchall()]
            await connection.execute(
                """INSERT INTO users (id, email, role, "emailConfirmed") VALUES (%s, %s, 'admin', true)""",
                (ADMIN_ID, ADMIN_EMAIL),
            )
            # What an admin's upload leaves in the audit log: plaintext keys, which nobody may ever export.
            await connection.execute(
                """INSERT INTO audit_logs ("adminUserId", action, target, payload)
                   SELECT id, 'admin.products.inventory.create', %s, %s FROM users WHERE role = 'admin'""",
                (f"product:{self._products[0]}", Jsonb({"items": ["DEMO-PLAIN-KEY1"]})),
            )

    async def close(self) -> None:
        """Close what `open` opened."""
        if self._http is not None:
            await self._http.close()

    async def place(self, source: Source, *, payment: bool = True) -> Order:
        """Somebody orders, and waits for the payment; without `payment` the provider's answer was never stored."""
        order = Order(
            id=str(uuid4()),
            email=f"buyer{self._rng.randrange(10**6)}@example.test",
            source=source,
            total_cents=self._rng.randrange(199, 9999),
            external_id=str(self._rng.randrange(10**9, 10**10)),
            item_ids=[str(uuid4()) for _ in range(self._rng.choice((1, 1, 2)))],
            payment_id=str(uuid4()) if payment else None,
        )
        order.status = order.payment_status = "waiting"
        async with self._pool.connection() as connection:
            await connection.execute(
                """INSERT INTO orders (id, email, status, "sourceType", "totalCrypto")
                   VALUES (%s, %s, 'waiting', %s, %s::numeric / 100)""",
                (order.id, order.email, source, order.total_cents),
            )
            share, rest = divmod(order.total_cents, len(order.item_ids))
            for item in order.item_ids:
                await connection.execute(
                    """INSERT INTO order_items (id, "orderId", "productId", "unitPrice", "productSourceType")
                       VALUES (%s, %s, %s, %s::numeric / 100, %s)""",
                    (item, order.id, self._rng.choice(self._products), share + rest, source),
                )
                rest = 0  # the first one's: together they cost what is asked for
            if order.payment_id is not None:
                await connection.execute(
                    """INSERT INTO payments (id, "orderId", "externalId", status, "priceAmount", "priceCurrency")
                       VALUES (%s, %s, %s, 'waiting', %s::numeric / 100, 'eur')""",
                    (order.payment_id, order.id, order.external_id, order.total_cents),
                )
        self.orders[order.id] = order
        return order

    async def move(self, order: Order, status: str, payment_status: str | None = None) -> None:
        """Set statuses without any webhook: a poll of the payment, a cron, an admin."""
        async with self._pool.connection() as connection:
            await self._move(connection, order, status, payment_status)
        order.status = status
        order.payment_status = payment_status or order.payment_status

    async def _move(
        self, connection: AsyncConnection, order: Order, status: str, payment_status: str | None = None
    ) -> None:
        await connection.execute('UPDATE orders SET status = %s, "updatedAt" = now() WHERE id = %s', (status, order.id))
        if payment_status is not None:
            await connection.execute(
                'UPDATE payments SET status = %s, "updatedAt" = now() WHERE "orderId" = %s', (payment_status, order.id)
            )

    async def reserve(self, order: Order) -> None:
        """Set stock aside: a row of ours for our own products, a reservation at Kinguin for theirs."""
        async with self._pool.connection() as connection:
            if order.source == "kinguin":
                await connection.execute(
                    'UPDATE orders SET "kinguinReservationId" = %s WHERE id = %s', (reservation(order), order.id)
                )
            else:
                await connection.execute(
                    """INSERT INTO product_inventory ("productId", "itemDataEncrypted", "encryptionIv", "authTag",
                           status, "reservedForOrderId", "reservedAt", cost)
                       VALUES (%s, %s, %s, %s, 'reserved', %s, now(), %s::numeric / 100)""",
                    (
                        self._rng.choice(self._products),
                        *(secrets.token_hex(16) for _ in range(3)),
                        order.id,
                        PRODUCT_COST_CENTS,
                    ),
                )

    async def deliver(self, order: Order, *, leak: bool = False) -> None:
        """Hand out the keys; the order is fulfilled with the last of them, and a confirmation goes out.

        Args:
            order: Is paid.
            leak: The sold inventory item is left `reserved`, as by a crash in the middle of the job.
        """
        for item in order.item_ids:
            await self._key(order, item)
        async with self._pool.connection() as connection:
            # A sold item keeps its reservation columns; only its status says that it is gone.
            if not leak:
                await connection.execute(
                    """UPDATE product_inventory SET status = 'sold', "soldToOrderId" = %s, "soldAt" = now()
                       WHERE "reservedForOrderId" = %s""",
                    (order.id, order.id),
                )
            await self._move(connection, order, "fulfilled")
        order.status = "fulfilled"
        if leak and order.source == "custom":
            order.leaked_cents = PRODUCT_COST_CENTS
        if "finished" in order.reported_by_ipn:
            self._truth.count("bitloot_paid_to_fulfilled_seconds_count")
        if await self.email(order.email, "order_completed"):
            async with self._pool.connection() as connection:
                await connection.execute('UPDATE orders SET "completionEmailSent" = true WHERE id = %s', (order.id,))

    async def sell_twice(self, order: Order) -> None:
        """A second key for an order that has one: a defect operators live with."""
        await self._key(order, order.item_ids[0])

    async def _key(self, order: Order, item: str) -> None:
        place = f"orders/{order.id}/items/{item}/delivery.json"
        if self._storage is not None:
            body = json.dumps({"codes": [f"DEMO-{secrets.token_hex(8)}"]}).encode()
            await asyncio.to_thread(self._storage.put, place, body, content_type="application/json")
        async with self._pool.connection() as connection:
            await connection.execute(
                """INSERT INTO keys ("orderItemId", "storageRef", "contentType") VALUES (%s, %s, 'text/plain')""",
                (item, place),
            )

    async def email(self, to: str, kind: str) -> bool:
        """Send an e-mail through Resend; whether it went out."""
        if self._http is None:
            raise RuntimeError("the shop is not open")
        started = time.monotonic()
        message = {"from": "shop@example.test", "to": to, "subject": kind}
        headers = {"Authorization": f"Bearer {self._resend.key}"}
        try:
            async with self._http.post(f"{self._resend.url}/emails", json=message, headers=headers) as answer:
                sent = answer.status == HTTPStatus.OK
        except aiohttp.ClientError:
            sent = False
        await self._metrics.email(kind, sent=sent, milliseconds=(time.monotonic() - started) * 1000)
        if not sent:
            self._truth.count("bitloot_email_fail_total")
        return sent

    async def bounce(self, kind: str, *, commit_after: float = 0.0) -> None:
        """An e-mail came back."""
        async with self._pool.connection() as connection:
            await connection.execute(
                """INSERT INTO email_bounces (email, type, reason, "externalBounceId", "bouncedAt")
                   VALUES (%s, %s, '550 no such user', %s, now())""",
                (f"gone{self._rng.randrange(10**6)}@example.test", kind, secrets.token_hex(8)),
            )
            if commit_after:
                await connection.execute("SELECT pg_sleep(%s)", (commit_after,))
        self._truth.count("bitloot_email_bounce_total", type=kind)

    async def age(self, seconds: float) -> None:
        """All that ever happened happened this much earlier."""
        async with self._pool.connection() as connection:
            for table in ("orders", "order_items", "payments", "webhook_logs", "keys"):
                await connection.execute(
                    SQL('UPDATE {} SET "createdAt" = "createdAt" - %(by)s, "updatedAt" = "updatedAt" - %(by)s').format(
                        Identifier(table)
                    ),
                    {"by": timedelta(seconds=seconds)},
                )
            for table, column in (
                ("email_bounces", "createdAt"),
                ("email_bounces", "bouncedAt"),
                ("product_inventory", "reservedAt"),
                ("product_inventory", "soldAt"),
            ):
                await connection.execute(
                    SQL("UPDATE {} SET {} = {} - %s").format(Identifier(table), Identifier(column), Identifier(column)),
                    (timedelta(seconds=seconds),),
                )


def reservation(order: Order) -> str:
    """Kinguin's name of an order."""
    return f"KGN-{order.id[:8]}"
