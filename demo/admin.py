"""The application's admin API: bearer tokens, flags kept in memory, and what operators may ask for.

As in the real one, a token is checked by its signature, its role and its time alone, and flags are read from memory:
whoever changes the table behind its back is not heard until the next start.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID

import jwt
from aiohttp import web
from psycopg_pool import AsyncConnectionPool

from demo.orders import Order
from demo.queues import FULFILLMENT, Queues

Handler = Callable[[web.Request, str], Awaitable[web.StreamResponse]]
"""Given a request and the id of the administrator who sent it."""

STATUSES = frozenset(
    "created waiting confirming paid fulfilled underpaid expired failed refunded cancelled".split()  # noqa: SIM905
)


class Admin:
    """What stands below `/admin`.

    Args:
        pool: The application's database.
        secret: Signs its tokens.
        queues: Its queues.
        orders: The model of each order by id, kept in step.

    Attributes:
        flags: As the running application sees them.
        syncs: How often the catalog was synchronised.
        flushes: How often the cache was emptied.
    """

    def __init__(self, pool: AsyncConnectionPool, secret: str, queues: Queues, orders: Mapping[str, Order]) -> None:
        self._pool = pool
        self._secret = secret
        self._queues = queues
        self._orders = orders
        self.flags: dict[str, bool] = {}
        self.syncs = 0
        self.flushes = 0

    async def start(self) -> None:
        """Read the flags, once."""
        async with self._pool.connection() as connection:
            rows = await connection.execute("SELECT name, enabled FROM feature_flags")
            self.flags = dict(await rows.fetchall())

    def routes(self, app: web.Application) -> None:
        """Add them."""
        for method, path, handler in (
            ("PATCH", "/admin/feature-flags/{name}", self._flag),
            ("POST", "/admin/catalog/sync", self._sync),
            ("POST", "/admin/ops/queues/{queue}/failed/{id}/retry", self._retry),
            ("POST", "/admin/orders/{id}/retry-fulfillment", self._fulfil),
            ("POST", "/admin/orders/{id}/resend-keys", self._resend),
            ("PATCH", "/admin/orders/{id}/status", self._status),
            ("DELETE", "/admin/ops/cache", self._flush),
        ):
            app.router.add_route(method, path, self._guarded(handler))

    def _guarded(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def guarded(request: web.Request) -> web.StreamResponse:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            try:
                claims = jwt.decode(token, self._secret, algorithms=["HS256"], options={"require": ["exp", "sub"]})
            except jwt.InvalidTokenError:
                return _says(401, "Unauthorized")
            if scheme != "Bearer" or not claims.get("email"):
                return _says(401, "Unauthorized")
            if claims.get("role") != "admin":
                return _says(403, "Forbidden resource")
            return await handler(request, claims["sub"])

        return guarded

    async def _flag(self, request: web.Request, admin: str) -> web.Response:
        body = await _body(request)
        enabled = body.get("enabled")
        if not isinstance(enabled, bool):
            return _says(400, "enabled must be a boolean value")
        name = request.match_info["name"]
        async with self._pool.connection() as connection:
            rows = await connection.execute(
                """UPDATE feature_flags SET enabled = %s, "updatedAt" = now(), "updatedById" = %s WHERE name = %s""",
                (enabled, admin, name),
            )
        if not rows.rowcount:
            return _says(404, f"Feature flag {name} not found")
        self.flags[name] = enabled
        return web.json_response({"name": name, "enabled": enabled})

    async def _sync(self, *_: object) -> web.Response:
        self.syncs += 1
        async with self._pool.connection() as connection:
            rows = await connection.execute(
                """UPDATE products SET "updatedAt" = now() WHERE "sourceType" = 'kinguin'"""
            )
        return web.json_response({"success": True, "productsProcessed": rows.rowcount}, status=201)

    async def _retry(self, request: web.Request, _: str) -> web.Response:
        retried = await self._queues.retry(request.match_info["queue"], request.match_info["id"])
        return web.json_response({"success": True}) if retried else _says(404, "Job not found")

    async def _fulfil(self, request: web.Request, _: str) -> web.Response:
        order = _uuid(request.match_info["id"])
        async with self._pool.connection() as connection:
            rows = await connection.execute("SELECT status FROM orders WHERE id = %s", (order,))
            row = await rows.fetchone()
        if row is None:
            return _says(404, "Order not found")
        if row[0] != "paid":
            return _says(400, f"Order is {row[0]}, not paid")
        job = await self._queues.add(FULFILLMENT, "reserve", {"order": str(order)})
        return web.json_response({"success": True, "jobId": job.id}, status=201)

    async def _resend(self, request: web.Request, _: str) -> web.Response:
        async with self._pool.connection() as connection:
            rows = await connection.execute(
                """UPDATE orders SET "completionEmailSent" = true, "updatedAt" = now()
                   WHERE id = %s AND status = 'fulfilled'""",
                (_uuid(request.match_info["id"]),),
            )
        return web.json_response({"success": True}, status=201) if rows.rowcount else _says(404, "Order not found")

    async def _status(self, request: web.Request, _: str) -> web.Response:
        status = (await _body(request)).get("status")
        if not isinstance(status, str) or status not in STATUSES:
            return _says(400, "status must be a valid order status")
        async with self._pool.connection() as connection:
            rows = await connection.execute(
                'UPDATE orders SET status = %s, "updatedAt" = now() WHERE id = %s',
                (status, _uuid(request.match_info["id"])),
            )
        if not rows.rowcount:
            return _says(404, "Order not found")
        if order := self._orders.get(request.match_info["id"]):
            order.status = status
        return web.json_response({"status": status})

    async def _flush(self, *_: object) -> web.Response:
        self.flushes += 1
        return web.json_response({"success": True})


async def _body(request: web.Request) -> dict[str, object]:
    try:
        body = await request.json()
    except json.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _uuid(text: str) -> UUID | None:
    """None finds nothing."""
    try:
        return UUID(text)
    except ValueError:
        return None


def _says(status: int, message: str) -> web.Response:
    return web.json_response({"statusCode": status, "message": message}, status=status)
