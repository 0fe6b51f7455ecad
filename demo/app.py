"""The application's HTTP side, as far as operators see it: /metrics, /healthz and the catalog."""

from __future__ import annotations

import psycopg
from aiohttp import web
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from demo.app_metrics import AppMetrics
from demo.http import HttpServer


class App(HttpServer):
    """The application.

    Args:
        pool: Its database.
        metrics: Its own counters.
    """

    def __init__(self, pool: AsyncConnectionPool, metrics: AppMetrics) -> None:
        super().__init__()
        self._pool = pool
        self.metrics = metrics

    def application(self) -> web.Application:
        """Its routes."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/catalog/products", self._products)
        return app

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
