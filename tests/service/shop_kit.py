"""What the tests of jobs that act on the application share: its HTTP side alone, on a database of the test's own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from bullmq import Job
from psycopg_pool import AsyncConnectionPool

from demo.app import App
from demo.app_metrics import AppMetrics
from demo.queues import Queues
from demo.truth import Truth

ADMIN = "00000000-0000-4000-8000-000000000001"
EMAIL = "flags@admin.example"


@contextlib.asynccontextmanager
async def an_app(dsn: str, directory: Path, redis_url: str = "redis://nowhere.invalid") -> AsyncIterator[App]:
    """The application's HTTP side while the block runs; its queues have no workers."""

    async def nobody(job: Job) -> None:
        raise AssertionError(job.name)

    queues = Queues(redis_url, directory, Truth(), nobody)
    async with (
        AsyncConnectionPool(dsn, min_size=1, max_size=3, open=False, name="application") as pool,
        App(pool, AppMetrics(), queues, {}) as app,
    ):
        yield app


def minted(app: App) -> dict[str, str]:
    """Settings to mint tokens with."""
    return {
        "APP_BASE_URL": app.url,
        "APP_JWT_SECRET": app.jwt_secret,
        "APP_ADMIN_ID": ADMIN,
        "APP_ADMIN_EMAIL": EMAIL,
    }
