"""The shop and its exporter together: what `python -m demo` and its check both run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException

import psycopg

from demo.backups import Kept
from demo.embedded import BACKUP_LOGIN, BUCKET, DATABASE, LEDGER, LOGIN, ROOT, VISITOR, Exporter, Stack
from demo.jobs import Jobs
from demo.page import Page
from demo.providers import Failure
from demo.shop import ADMIN_EMAIL, ADMIN_ID
from demo.traffic import Traffic
from demo.world import World, world
from opslib.settings import load
from opslib.storage import Storage

FLAGS = ROOT / "flags" / "flags.yaml"

READY_SECONDS = 30.0
COUNTED_SECONDS = 45.0
"""How long a notification waits to be counted, an exporter's death and return included."""


@dataclass(slots=True)
class Session:
    """Everything, running."""

    stack: Stack
    world: World
    traffic: Traffic
    exporter: Exporter
    jobs: Jobs
    backups: Kept
    operator: Mapping[str, str]
    """What `opsctl` needs in another terminal."""

    async def live_night(self) -> None:
        """Start the jobs, and have done what is due at night, before anybody looks."""
        await asyncio.to_thread(self.jobs.start)
        await self.jobs.night()

    async def start_exporter(self) -> None:
        """Start the exporter, and wait until it has read everything once.

        Raises:
            TimeoutError: A collector of its is still not ready.
            StartError: It does not start at all.
        """
        await asyncio.to_thread(self.exporter.start)
        deadline = time.monotonic() + READY_SECONDS
        while True:
            status, text = await asyncio.to_thread(self.exporter.get, "/readyz")
            if status == HTTPStatus.OK:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the exporter is not ready: {text.strip()}\n{self.exporter.tail()}")
            await asyncio.sleep(0.1)

    async def page(self) -> Page | None:
        """What it says now; None while it is not there."""
        try:
            _, text = await asyncio.to_thread(self.exporter.get, "/metrics")
        except (OSError, HTTPException):  # refused, or killed in the middle of the page
            return None
        return Page.parse(text)


@asynccontextmanager
async def session(stack: Stack, *, seed: int, per_second: float, scheduler: bool = True) -> AsyncIterator[Session]:
    """Open the shop, live its yesterday, and prepare the exporter and the jobs without starting them.

    Args:
        stack: The servers.
        seed: Of all chance.
        per_second: Stories told.
        scheduler: See `Jobs`.
    """

    async def counted(row: str) -> bool:
        deadline = time.monotonic() + COUNTED_SECONDS
        async with await psycopg.AsyncConnection.connect(stack.dsn, autocommit=True) as connection:
            while time.monotonic() < deadline:
                rows = await connection.execute("SELECT FROM ops.ledger_seen WHERE id = %s", (row,))
                if rows.rowcount:
                    return True
                await asyncio.sleep(0.2)
        return False

    storage = Storage.of(load(stack.bucket))
    async with world(stack.dsn, stack.redis.url, stack.directory, seed=seed, counted=counted, storage=storage) as here:
        await here.live_yesterday()
        # The very first question is refused: the exporter has to ask again.
        here.nowpayments.fail(Failure.RATE_LIMITED, times=1)
        settings = {
            "DATABASE_URL": stack.postgres.dsn(DATABASE, LOGIN),
            "REDIS_URL": stack.redis.url,
            "NOWPAYMENTS_API_KEY": here.nowpayments.key,
            "NOWPAYMENTS_BASE": here.nowpayments.url,
            "KINGUIN_API_KEY": here.kinguin.key,
            "KINGUIN_BASE_URL": here.kinguin.url,
            "APP_BASE_URL": here.app.url,
            "APP_METRICS_URL": f"{here.app.url}/metrics",
            **stack.bucket,
            **LEDGER,
        }
        exporter = Exporter(stack.directory, settings)
        # Without NOWPayments' key: each call lowers what its rate limit leaves, and only the exporter looks at that.
        kinguin = {name: settings[name] for name in ("KINGUIN_API_KEY", "KINGUIN_BASE_URL")}
        administrator = {
            "APP_BASE_URL": here.app.url,
            "APP_JWT_SECRET": here.app.jwt_secret,
            "APP_ADMIN_ID": ADMIN_ID,
            "APP_ADMIN_EMAIL": ADMIN_EMAIL,
            "OPS_FLAGS_FILE": str(FLAGS),
        }
        backups = {
            **stack.bucket,
            "BACKUP_DATABASE_URL": stack.postgres.dsn(DATABASE, BACKUP_LOGIN),
            "RESTORE_DRILL_DATABASE_URL": stack.postgres.dsn(),
        }
        redis = {"REDIS_URL": settings["REDIS_URL"]}
        jobs = Jobs(stack, {**redis, **kinguin, **administrator, **backups}, here.truth, scheduler=scheduler)
        operator = {
            **{name: settings[name] for name in ("REDIS_URL", "APP_METRICS_URL")},
            **kinguin,
            **administrator,
            "DATABASE_URL": stack.postgres.dsn(DATABASE, VISITOR),
            **backups,
            "RESTORE_DATABASE_URL": stack.postgres.dsn(),
        }
        traffic = Traffic(here.stories, here.truth, seed=seed, per_second=per_second)
        try:
            yield Session(
                stack, here, traffic, exporter, jobs, Kept(stack.s3.root / BUCKET / "backups" / "db"), operator
            )
        finally:
            await asyncio.to_thread(jobs.stop)
            await asyncio.to_thread(exporter.stop)
