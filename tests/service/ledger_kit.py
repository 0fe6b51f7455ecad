"""What the ledger's tests share: rows as the application writes them, ledgers as exporters make them, and the truth."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from opslib.areas.ledger import Family, Ledger
from opslib.checkpoint import Checkpoint
from opslib.errors import CheckpointHeldError
from opslib.postgres import Database

WEBHOOK = Family("webhook", since="webhook_since", history="webhook_history", slice="webhook_slice")

INSERT = """INSERT INTO webhook_logs
            ("externalId", "webhookType", payload, "signatureValid", processed, result, "createdAt")
            VALUES (gen_random_uuid(), %(type)s, '{}', %(valid)s, %(done)s, %(result)s, now() - %(age)s::interval)
            RETURNING id"""
ROWS = {
    "ok": {"type": "nowpayments_ipn", "valid": True, "done": True, "result": {"success": True}},
    "invalid": {
        "type": "nowpayments_ipn",
        "valid": False,
        "done": False,
        "result": {"success": False, "error": "Invalid webhook signature"},
    },
    "error": {"type": "nowpayments_ipn", "valid": True, "done": False, "result": {"error": "Order not found"}},
    "undecided": {
        "type": "nowpayments_ipn",
        "valid": False,
        "done": False,
        "result": {"success": False, "message": "Processing"},
    },
    "kinguin": {"type": "kinguin_order_status", "valid": True, "done": False, "result": None},
    "stranger": {"type": "stripe_event", "valid": True, "done": True, "result": None},
}
DECIDED = [kind for kind in ROWS if kind != "undecided"]


async def insert(connection: psycopg.AsyncConnection[Any], kind: str, age: float = 0) -> str:
    """A webhook row of that kind, `age` seconds old."""
    row = ROWS[kind]
    cursor = await connection.execute(
        INSERT, {**row, "result": None if row["result"] is None else Jsonb(row["result"]), "age": f"{age} seconds"}
    )
    found = await cursor.fetchone()
    assert found
    return str(found[0])


async def decide(connection: psycopg.AsyncConnection[Any], row: str) -> None:
    """The application has processed the notification after all."""
    await connection.execute(
        'UPDATE webhook_logs SET "signatureValid" = true, processed = true, result = %s WHERE id = %s',
        (Jsonb({"success": True}), row),
    )


@asynccontextmanager
async def ledger(
    dsn: str, family: Family = WEBHOOK, *, horizon: float = 900, settle: float = 1
) -> AsyncIterator[Ledger]:
    """A ledger with connections of its own, as one exporter has."""
    made = Ledger(
        family,
        Database(dsn, application_name="test", read_only=True),
        Database(dsn, application_name="test"),
        horizon=timedelta(seconds=horizon),
        settle=timedelta(seconds=settle),
    )
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def counted(made: Ledger) -> dict[str, int]:
    """What is shown, by subject and outcome."""
    return {f"{row['subject']}/{row['outcome']}": row["events"] for row in await made.totals()}


async def truth(connection: psycopg.AsyncConnection[Any]) -> dict[str, int]:
    """What is in the application's table, by subject and outcome."""
    cursor = await connection.execute(
        "SELECT provider || '/' || outcome, count(*) FROM ops_view.webhook_events GROUP BY 1"
    )
    return dict(await cursor.fetchall())


async def flow(dsn: str, chance: random.Random, until: asyncio.Event) -> None:
    """The application, writing one decided row after the other, some in transactions that stay open for a while.

    It goes on through whatever happens to the server.
    """
    while not until.is_set():
        try:
            async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=2) as connection:
                while not until.is_set():
                    await insert(connection, chance.choice(DECIDED))
                    if chance.random() < 0.1:
                        await asyncio.sleep(chance.uniform(0, 0.3))
                    if chance.random() < 0.5:
                        await connection.commit()
                    await asyncio.sleep(0.002)
        except psycopg.Error:
            await asyncio.sleep(0.05)


async def loaded(checkpoint: Checkpoint) -> None:
    """Load it as soon as whoever had it is gone from the server too, which takes a moment after they hung up."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await checkpoint.load()
            except CheckpointHeldError:
                await asyncio.sleep(0.05)
