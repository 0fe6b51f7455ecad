"""What happened to an order, on orders of the demo: each way it can go is told to its end, and what it comes to."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from demo.orders import Order
from demo.traffic import drained
from demo.world import World, world
from opsctl.cli import cli
from opslib.errors import NotFoundError


@pytest.fixture
async def shop(database: str, redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """The demo's application, where the command finds it."""
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("REDIS_URL", redis)
    monkeypatch.setenv("COLUMNS", "200")
    async with world(database, redis, tmp_path, seed=3) as here:
        yield here


async def told(order: Order, *arguments: str) -> Any:
    """What the command says of it."""
    show = ["orders", "show", order.id, *arguments]
    ended = await asyncio.to_thread(CliRunner().invoke, cli, show)
    assert ended.exit_code == 0, ended.output + str(ended.exception)
    return json.loads(ended.stdout) if "--json" in arguments else ended.stdout


def areas(story: Any) -> list[tuple[str, str]]:
    """The time line's areas and states, in order."""
    return [(moment["area"], moment["state"]) for moment in story["timeline"]]


async def eventually(order: Order, holds: Callable[[Any], bool]) -> Any:
    """The story once it has come so far."""
    deadline = time.monotonic() + 30
    while not holds(story := await told(order, "--json")):
        assert time.monotonic() < deadline, story
        await asyncio.sleep(0.2)
    return story


async def test_bought_paid_and_delivered(shop: World) -> None:
    """Every step is there, each once, in the order it happened, and its picture says the same."""
    order = await shop.shop.place("custom")
    row = await shop.stories.webhooks.received(order.external_id, "finished", order.id)
    assert await shop.stories.webhooks.accept(row, order, "finished")
    await shop.stories._fulfil(order)
    await drained(shop.queues, 20)
    story = await told(order, "--json")
    line = areas(story)
    assert line[:2] == [("order", ""), ("payment", "")]
    assert [each for each in line if each[0] == "webhook"] == [("webhook", "ok")]
    assert ("payment", "finished") in line
    assert ("reservation", "sold") in line
    assert line.count(("key", "delivered")) == len(order.item_ids) == len(story["keys"])
    assert line[-1] == ("order", "fulfilled")
    times = [moment["at"] for moment in story["timeline"]]
    assert times == sorted(times)
    assert (story["state"], story["note"], story["jobs"]) == ("ok", "", [])
    assert "paid and delivered" in story["finding"]
    shown = await told(order)
    assert order.email not in shown + json.dumps(story)
    assert "paid and delivered" in shown
    assert shown.count("handed out for item") == len(order.item_ids)


async def test_paid_and_its_job_failed_for_good(shop: World) -> None:
    """The job is found by the order's id, with its attempts; the command that mends it is said."""
    order = await shop.shop.place("kinguin")
    row = await shop.stories.webhooks.received(order.external_id, "finished", order.id)
    assert await shop.stories.webhooks.accept(row, order, "finished")
    await shop.stories._fulfil(order, failures=5)
    story = await eventually(order, lambda story: story["state"] == "failed")
    (job,) = story["jobs"]
    assert (job["state"], job["attempts_made"], job["reason"]) == ("failed", 5, "upstream answered 503")
    assert f"opsctl queues retry fulfillment-queue fulfill-{order.id}" in story["finding"]
    assert areas(story)[-1] == ("job", "failed")


async def test_what_the_application_loses_is_found(shop: World) -> None:
    """A dropped notification, a payment that moved nothing, a key too many, a sale without a payment, no job at all."""
    stories = shop.stories
    stories.queues = None
    found = {}
    for story in (stories.later_status_dropped, stories.unmoved, stories.sold_twice, stories.unknown_payment):
        before = set(shop.shop.orders)
        await story()
        (order,) = (shop.shop.orders[id_] for id_ in set(shop.shop.orders) - before)
        found[story.__name__] = await told(order, "--json")
    order = await shop.shop.place("custom")
    await shop.shop.move(order, "paid", "finished")
    found["nobody"] = await told(order, "--json")
    assert {story["state"] for story in found.values()} == {"failed"}
    assert "dropped it as a duplicate" in found["later_status_dropped"]["finding"]
    assert "the payment is finished and the order still waiting" in found["unmoved"]["finding"]
    assert "somebody got one for nothing" in found["sold_twice"]["finding"]
    assert "no payment is stored" in found["unknown_payment"]["finding"]
    assert "no job is at it" in found["nobody"]["finding"]


async def test_without_redis_the_rest_is_told(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that the jobs are missing; an order nobody placed is exit code 4."""
    order = await shop.shop.place("custom")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    assert "its jobs are not shown: Redis does not answer" in (await told(order, "--json"))["note"]
    monkeypatch.delenv("REDIS_URL")
    assert "its jobs are not shown: REDIS_URL is not set" in await told(order)
    for nobody in ("00000000-0000-0000-0000-000000000000", "4711", "' OR true"):
        ended = await asyncio.to_thread(CliRunner().invoke, cli, ["orders", "show", nobody])
        assert isinstance(ended.exception, NotFoundError), nobody
        assert nobody in str(ended.exception)
