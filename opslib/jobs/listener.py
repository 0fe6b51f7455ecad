"""Hears of new work and of cancellations the moment they happen; a lost line is noticed and back within seconds.

Nothing depends on it: whoever missed a word finds out by asking, some seconds later.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import psycopg
from psycopg.rows import DictRow, dict_row

from opslib.areas.runs import CHANNEL
from opslib.errors import SourceError
from opslib.postgres import conninfo, within

WORK = "procrastinate_any_queue_v1"
QUIET_SECONDS = 2.0
"""After that long without a word the line itself is tried."""


async def listen(
    dsn: str, application_name: str, work: Callable[[], None], cancel: Callable[[], None], retry: float
) -> None:
    """Call `work` when something was queued and `cancel` when a run is asked to stop, for ever."""
    while True:
        try:
            connection: psycopg.AsyncConnection[DictRow] = await psycopg.AsyncConnection.connect(
                conninfo(dsn, application_name=application_name), autocommit=True, row_factory=dict_row
            )
            async with connection:
                await within(2, connection, connection.execute(f"LISTEN {CHANNEL}; LISTEN {WORK}"))
                # What was said while nobody listened.
                work()
                cancel()
                while True:
                    async for notify in connection.notifies(timeout=QUIET_SECONDS):
                        if notify.channel == WORK:
                            work()
                        elif json.loads(notify.payload)["event"] == "cancel":
                            cancel()
                    await within(2, connection, connection.execute("SELECT 1"))
        except (psycopg.Error, SourceError):
            await asyncio.sleep(retry)
