"""The report of a closed span against the exporters' counters of the same span, on the demo: to the unit."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from demo.check import DRAIN_SECONDS
from demo.embedded import DATABASE, JOBS_LOGIN, Stack, stack
from demo.page import Page
from demo.session import Session, session
from demo.traffic import drained
from demo.world import TRACELESS
from opslib import settings
from opslib.areas import facts
from opslib.report import make
from opslib.session import session as connected

SECONDS = 8.0
STEADY = 14.0  # the demo settles an undecided notification after six seconds
"""Longer than the ledger's settling and its refresh: what has not moved for so long is counted."""
COUNTERS = (
    *("bitloot_webhook_total", "bitloot_webhook_reclassified_total", "bitloot_underpaid_total"),
    *("bitloot_queue_jobs_total", "bitloot_email_bounce_total"),
)


@pytest.mark.timeout(240)
def test_numbers_equal_the_counters_differences() -> None:
    """Calls by provider and outcome, underpaid orders, bounces, jobs by queue and result."""
    left = (
        datetime.combine(datetime.now(UTC) + timedelta(days=1), datetime.min.time(), UTC) - datetime.now(UTC)
    ).seconds
    if left < 120:
        time.sleep(left + 1)  # the span is within one day
    with stack() as servers:
        before, before_report, after, after_report = asyncio.run(_span(servers))
    counted = {of: value - before.values.get(of, 0.0) for of, value in after.values.items() if of[0] in COUNTERS}
    calls: Counter[tuple[str, str]] = Counter()
    underpaid = bounces = 0.0
    jobs: Counter[tuple[str, str]] = Counter()
    for (name, pairs), value in counted.items():
        labels = dict(pairs)
        if name == "bitloot_webhook_total" and pairs not in TRACELESS:  # those leave no row
            calls[labels["provider"], labels["outcome"]] += int(value)
        elif name == "bitloot_webhook_reclassified_total":
            calls[labels["provider"], labels["from"]] -= int(value)
            calls[labels["provider"], labels["to"]] += int(value)
        elif name == "bitloot_underpaid_total":
            underpaid += value
        elif name == "bitloot_email_bounce_total":
            bounces += value
        elif name == "bitloot_queue_jobs_total":
            jobs[labels["queue"], labels["result"]] += int(value)
    assert _calls(after_report, before_report) == {of: n for of, n in calls.items() if n}
    assert sum(calls.values()) > 20
    numbers = [each["sections"]["numbers"]["numbers"] for each in (before_report, after_report)]
    for name, count in (("Underpaid orders", underpaid), ("E-mails bounced", bounces)):
        assert int(numbers[1][name]) - int(numbers[0][name]) == count
    throughput = after_report["sections"]["queues"]["charts"]["throughput"]
    assert _flat(throughput) == {of: n for of, n in jobs.items() if n}
    assert sum(jobs.values()) > 10
    assert after_report["not_read"] == []


def _flat(chart: dict[str, dict[str, int]]) -> dict[tuple[str, str], int]:
    return {(row, part): n for row, parts in chart.items() for part, n in parts.items() if n}


def _calls(after: dict[str, Any], before: dict[str, Any]) -> dict[tuple[str, str], int]:
    then, now = (_flat(each["sections"]["webhooks"]["charts"]["outcomes"]) for each in (before, after))
    return {of: n - then.get(of, 0) for of, n in now.items() if n != then.get(of, 0)}


async def _span(servers: Stack) -> tuple[Page, dict[str, Any], Page, dict[str, Any]]:
    """The exporter's page and the day's report before and after some traffic."""
    async with session(servers, seed=5, per_second=12.0, scheduler=False) as here:
        await here.start_exporter()
        async with here.traffic.flowing():  # so that every counter has begun
            await asyncio.sleep(SECONDS / 2)
        assert await drained(here.world.queues, DRAIN_SECONDS)
        before = await _steady(here)
        # What `cleanup` notes each night: yesterday's facts, and the counters as they stand.
        with connected(servers.dsn, "test") as database:
            await asyncio.to_thread(facts.write, database, database, lambda *_: None)
        before_report = await asyncio.to_thread(_report, servers)
        async with here.traffic.flowing():
            await asyncio.sleep(SECONDS)
        assert await drained(here.world.queues, DRAIN_SECONDS)
        after = await _steady(here)
        return before, before_report, after, await asyncio.to_thread(_report, servers)


def _report(servers: Stack) -> dict[str, Any]:
    """Today's, so far, for programs."""
    loaded = settings.load(
        {
            "DATABASE_URL": servers.postgres.dsn(DATABASE, JOBS_LOGIN),
            "REDIS_URL": servers.redis.url,
            "R2_ENDPOINT": servers.s3.endpoint,
            "R2_BUCKET": "bitloot",
            "R2_ACCESS_KEY_ID": servers.s3.access_key_id,
            "R2_SECRET_ACCESS_KEY": servers.s3.secret_access_key,
        }
    )
    made: dict[str, Any] = json.loads(make.day(loaded, datetime.now(UTC).date()).files["report.json"])
    return made


async def _steady(here: Session) -> Page:
    """The page once its counters have not moved for `STEADY` seconds."""
    last, since = await here.page(), time.monotonic()
    deadline = since + 90
    while time.monotonic() - since < STEADY:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.5)
        page = await here.page()
        if (
            page is None
            or last is None
            or any(page.values.get(of) != last.values.get(of) for of in page.values if of[0] in COUNTERS)
        ):
            last, since = page, time.monotonic()
    assert last is not None
    return last
