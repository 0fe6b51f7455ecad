"""The job `product-sync`: the application is asked once, and what it said is the run's result."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest

from jobs import product_sync
from jobs.product_sync import JOB, Result
from opslib.errors import ConfigError, SourceError
from opslib.spec import NoParams
from tests.service.job_kit import a_run
from tests.service.shop_kit import an_app, minted


async def sync(env: dict[str, str]) -> Result:
    """Run the job beside the loop that serves the application."""
    return await asyncio.to_thread(product_sync.run, a_run(JOB.name, **env), NoParams())


async def test_its_answer_is_the_result(app_database: str, tmp_path: Path) -> None:
    """Each run asks once; a refusal asks once, too, and fails the run."""
    with psycopg.connect(app_database) as owner:
        owner.execute("""INSERT INTO products (title, "sourceType") VALUES ('a', 'kinguin'), ('b', 'custom')""")
    async with an_app(app_database, tmp_path) as app:
        for times in (1, 2):
            assert (await sync(minted(app))).answer == {"success": True, "productsProcessed": 1}
            assert app.admin.syncs == times
        with pytest.raises(SourceError, match="answered 401"):
            await sync({**minted(app), "APP_JWT_SECRET": "another-secret-of-thirty-two-bytes"})
        assert app.admin.syncs == 2


async def test_without_settings() -> None:
    """Says which."""
    with pytest.raises(ConfigError, match="APP_BASE_URL is not set"):
        await sync({})
