"""What a webhook call leaves behind in the application's tables, row by row as the real application leaves it.

The real one inserts the row of a payment notification (IPN) first, as "Processing", and updates it a moment later.
`Truth` is told in the same breath; nothing here is read back by anything that counts.
"""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from typing import Any, Literal

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from demo.app_metrics import AppMetrics
from demo.orders import AFTER_IPN, Order
from demo.truth import Truth

PROCESSING = {"success": False, "message": "Processing"}
BAD_SIGNATURE = {"success": False, "error": "Invalid webhook signature"}

PROCESSING_SECONDS = 1.5
"""An IPN still undecided at this age is left so, as if its processing hung. Below the demo's settle delay of six
seconds, with room for a busy machine, so that no row is decided in the very moment it is counted."""


class Webhooks:
    """The application's receivers.

    Args:
        pool: Its database.
        metrics: Its own counters, where calls that leave no row are counted.
        truth: Is told what happened.
    """

    def __init__(self, pool: AsyncConnectionPool, metrics: AppMetrics, truth: Truth) -> None:
        self._pool = pool
        self._metrics = metrics
        self._truth = truth

    async def received(self, external_id: str, status: str, order_id: str, *, commit_after: float = 0.0) -> str:
        """An IPN came in and is being processed: the row's id. Its transaction commits this many seconds late."""
        payload = {"payment_id": external_id, "payment_status": status, "order_id": order_id, "pay_currency": "btc"}
        async with self._pool.connection() as connection:
            rows = await connection.execute(
                """INSERT INTO webhook_logs ("externalId", "webhookType", payload, signature, result, "sourceIp")
                   VALUES (%s, 'nowpayments_ipn', %s, %s, %s, '203.0.113.7') RETURNING id::text""",
                (external_id, Jsonb(payload), secrets.token_hex(64), Jsonb(PROCESSING)),
            )
            found = await rows.fetchone()
            if commit_after:
                await connection.execute("SELECT pg_sleep(%s)", (commit_after,))
        if found is None:
            raise RuntimeError("INSERT .. RETURNING returned nothing")
        row: str = found[0]
        return row

    async def accept(self, row: str, order: Order, status: str, *, late: bool = False) -> bool:
        """The IPN is valid and processed: row, payment and order move in one transaction.

        Args:
            row: What `received` returned.
            order: Whose payment it is.
            status: What the provider says.
            late: The row was counted as a duplicate before, and is decided all the same (Redis was frozen).

        Returns:
            False, and nothing is done, when the row grew too old to be decided before it is counted.
        """
        order_status, payment_status = AFTER_IPN[status]
        result = {
            "success": True,
            "message": "IPN processed",
            "orderId": order.id,
            "paymentId": order.payment_id,
            "previousStatus": order.status,
            "newStatus": order_status,
            "fulfillmentTriggered": order_status == "paid",
        }
        async with self._pool.connection() as connection:
            if not late and await _age(connection, row) > PROCESSING_SECONDS:
                return False
            await connection.execute(
                """UPDATE webhook_logs SET "signatureValid" = true, processed = true, "paymentStatus" = %s,
                          "orderId" = %s, "paymentId" = %s, result = %s, "updatedAt" = now()
                   WHERE id = %s""",
                (status, order.id, order.payment_id, Jsonb(result), row),
            )
            await connection.execute(
                'UPDATE orders SET status = %s, "updatedAt" = now() WHERE id = %s', (order_status, order.id)
            )
            await connection.execute(
                'UPDATE payments SET status = %s, confirmations = confirmations + 1, "updatedAt" = now() WHERE id = %s',
                (payment_status, order.payment_id),
            )
        if order_status == "underpaid" and order.status != "underpaid":
            self._truth.count("bitloot_underpaid_total")
        order.status, order.payment_status = order_status, payment_status
        order.reported.add(status)
        order.reported_by_ipn.add(status)
        if late:
            order.dropped.discard(status)
            self._truth.reclassified("nowpayments", "duplicate", "ok")
        else:
            self._truth.webhook("nowpayments", "ok")
        return True

    def drop(self, order: Order | None, status: str) -> None:
        """Nothing more happens to a row that was `received`: it is a duplicate, or its processing hangs."""
        if order is not None:
            order.dropped.add(status)
        self._truth.webhook("nowpayments", "duplicate")

    async def refuse(self, row: str) -> bool:
        """The signature is bad. False as for `accept`."""
        return await self._decide(row, "invalid", BAD_SIGNATURE, valid=False, status=None)

    async def fail(self, row: str, error: str, status: str | None = None) -> bool:
        """The signature is fine, and processing ends in an error. False as for `accept`."""
        return await self._decide(row, "error", {"success": False, "error": error}, valid=True, status=status)

    async def _decide(self, row: str, outcome: str, result: dict[str, Any], *, valid: bool, status: str | None) -> bool:
        async with self._pool.connection() as connection:
            if await _age(connection, row) > PROCESSING_SECONDS:
                return False
            await connection.execute(
                """UPDATE webhook_logs SET "signatureValid" = %s, "paymentStatus" = %s, result = %s, "updatedAt" = now()
                   WHERE id = %s""",
                (valid, status, Jsonb(result), row),
            )
        if outcome == "invalid":
            await self._metrics.count("invalid_hmac_count", provider="nowpayments")
        self._truth.webhook("nowpayments", outcome)
        return True

    async def duplicate_noticed(self) -> None:
        """The application also counts a duplicate in memory; its row is what counts for us."""
        await self._metrics.count("duplicate_webhook_count", provider="nowpayments", type="ipn")

    async def legacy(self, order: Order | None, *, error: str | None = None, commit_after: float = 0.0) -> None:
        """A call of the old IPN route: on success the row says nothing but that; on failure its error column is set."""
        async with self._pool.connection() as connection:
            await connection.execute(
                """INSERT INTO webhook_logs ("externalId", "webhookType", payload, "signatureValid", processed, error)
                   VALUES (%s, 'nowpayments_ipn', %s, %s, %s, %s)""",
                (
                    order.external_id if order else secrets.token_hex(5),
                    Jsonb({"payment_status": "finished"}),
                    error is None,
                    error is None,
                    error,
                ),
            )
            if order is not None and error is None:
                await connection.execute(
                    "UPDATE orders SET status = 'paid', \"updatedAt\" = now() WHERE id = %s", (order.id,)
                )
                await connection.execute(
                    "UPDATE payments SET status = 'finished', \"updatedAt\" = now() WHERE id = %s", (order.payment_id,)
                )
            if commit_after:
                await connection.execute("SELECT pg_sleep(%s)", (commit_after,))
        if error is not None:
            self._truth.webhook("nowpayments", "invalid" if "signature" in error.lower() else "error")
            return
        if order is not None:
            order.status, order.payment_status = "paid", "finished"
            order.reported.add("finished")
        self._truth.webhook("nowpayments", "ok")

    async def kinguin_order(self, reservation: str, status: str, *, commit_after: float = 0.0) -> None:
        """Kinguin reports an order's status. The row stays unprocessed for ever."""
        await self._kinguin("kinguin_order_status", reservation, status, processed=False, commit_after=commit_after)

    async def kinguin_product(self, *, commit_after: float = 0.0) -> None:
        """Kinguin reports a product's price. Its status column holds a time."""
        stamp = datetime.now(UTC).isoformat()
        product = secrets.token_hex(8)
        await self._kinguin("kinguin_product_update", product, stamp, processed=True, commit_after=commit_after)

    async def _kinguin(self, kind: str, external_id: str, status: str, *, processed: bool, commit_after: float) -> None:
        payload = json.dumps({"status": status, "updatedAt": datetime.now(UTC).isoformat()})
        async with self._pool.connection() as connection:
            await connection.execute(
                """INSERT INTO webhook_logs
                       ("externalId", "webhookType", payload, "signatureValid", processed, "paymentStatus")
                   VALUES (%s, %s, %s::jsonb, true, %s, %s)""",
                (external_id, kind, payload, processed, status),
            )
            if commit_after:
                await connection.execute("SELECT pg_sleep(%s)", (commit_after,))
        self._truth.webhook("kinguin", "ok")

    async def kinguin_traceless(self, outcome: Literal["duplicate", "invalid"]) -> None:
        """A Kinguin call sent twice or with a wrong secret leaves no row, only the application's counter."""
        if outcome == "duplicate":
            await self._metrics.count("duplicate_webhook_count", provider="kinguin", type="order_status")
        else:
            await self._metrics.count("invalid_hmac_count", provider="kinguin")
        self._truth.webhook("kinguin", outcome)


async def _age(connection: AsyncConnection, row: str) -> float:
    rows = await connection.execute(
        """SELECT extract(epoch FROM clock_timestamp() AT TIME ZONE 'UTC' - "createdAt")::float8
           FROM webhook_logs WHERE id = %s FOR UPDATE""",
        (row,),
    )
    found = await rows.fetchone()
    if found is None:
        raise RuntimeError(f"webhook_logs has no row {row}")
    age: float = found[0]
    return age
