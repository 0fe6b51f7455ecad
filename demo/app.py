"""The application's HTTP side, as far as operators see it: /metrics, /healthz, the catalog and the admin API."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

import psycopg
from aiohttp import web
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from demo.admin import Admin
from demo.app_metrics import AppMetrics
from demo.http import HttpServer
from demo.orders import Order
from demo.queues import Queues


class App(HttpServer):
    """The application.

    Args:
        pool: Its database.
        metrics: Its own counters.
        queues: Its queues.
        orders: The model of each order by id.

    Attributes:
        jwt_secret: Signs the tokens of its administrators.
        admin: Its admin API.
    """

    def __init__(
        self, pool: AsyncConnectionPool, metrics: AppMetrics, queues: Queues, orders: Mapping[str, Order]
    ) -> None:
        super().__init__()
        self._pool = pool
        self.metrics = metrics
        self.jwt_secret = uuid4().hex
        self.admin = Admin(pool, self.jwt_secret, queues, orders)

    def application(self) -> web.Application:
        """Its routes."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/catalog/products", self._products)
        self.admin.routes(app)
        return app

    async def start(self) -> None:
        """Read the flags and listen."""
        await self.admin.start()
        await super().start()

    async def restart(self) -> None:
        """Leave and come back with all counters at zero."""
        await self.stop()
        self.metrics.restart()
        await self.start()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self.metrics.page(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _healthz(self, _: web.Request) -> web.Response:
        # As the real one: 200 whatever the database does. Real health is the catalog's.
        return web.json_response({"status": "ok"})

    async def _products(self, _: web.Request) -> web.Response:
        try:
            async with self._pool.connection(timeout=2) as connection:
                rows = await connection.execute('SELECT id, title FROM products WHERE "isPublished" LIMIT 20')
                products = [{"id": str(key), "title": title} for key, title in await rows.fetchall()]
        except (psycopg.Error, PoolTimeout):
            return web.json_response({"statusCode": 500, "message": "Internal server error"}, status=500)
        return web.json_response({"data": products, "total": len(products)})
