"""What only the application counts is handed over once, across its restarts and ours."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from aiohttp import web

from exporters.app import App, parse
from opslib.errors import SourceError

NAME = "app/test"


class Page:
    """The application's /metrics."""

    def __init__(self) -> None:
        self.url = ""
        self.text = ""
        self.status = 200

    def says(self, started: float, duplicates: int = 0, invalid: int = 0, failed: tuple[int, ...] = ()) -> None:
        """Counters as they stand, declared as such; zero is absent, as prom-client has it."""
        lines = [f"process_start_time_seconds {started}", 'duplicate_webhook_count{provider="nowpayments",type="x"} 99']
        if duplicates:
            lines.append(f'duplicate_webhook_count{{provider="kinguin",type="kinguin_order_status"}} {duplicates}')
        if invalid:
            lines += ["# TYPE invalid_hmac_count counter", f'invalid_hmac_count{{provider="kinguin"}} {invalid}']
        lines += ["# TYPE email_send_failed counter"] if failed else []
        lines += [f'email_send_failed{{type="t{number}"}} {count}' for number, count in enumerate(failed)]
        self.text = "\n".join(lines) + "\n"


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """A page served over real HTTP."""
    page = Page()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=page.text, status=page.status)

    application = web.Application()
    application.add_routes([web.get("/metrics", answer)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    page.url = f"http://127.0.0.1:{runner.addresses[0][1]}/metrics"
    yield page
    await runner.cleanup()


async def handed_over(database: str) -> dict[str, float]:
    """What the ledger will find."""
    async with await psycopg.AsyncConnection[Any].connect(database) as connection:
        rows = await connection.execute("SELECT series, value FROM ops.exporter_series WHERE exporter = %s", (NAME,))
        return {"/".join(json.loads(series)): value[0] for series, value in await rows.fetchall()}


async def read(page: Page, database: str, times: int = 1) -> dict[str, float]:
    """A fresh exporter reads so many times, then is gone without a word."""
    app = App(page.url, NAME, database)
    for _ in range(times):
        await app.collect()
    await app.stop()
    return await handed_over(database)


async def test_growth_is_added_once_across_our_restarts_and_the_applications(page: Page, database: str) -> None:
    """Reading twice adds nothing; a restart of the application begins its counters at zero, ours go on."""
    page.says(100, duplicates=2, failed=(1, 2))
    expected = {
        "bitloot_app_restarts_total": 0,
        "app_webhook_total/kinguin/duplicate": 2,
        "app_webhook_total/kinguin/invalid": 0,
        "app_email_fail_total": 3,
    }
    assert await read(page, database, times=2) == expected
    assert await read(page, database) == expected
    page.says(100, duplicates=3, invalid=1, failed=(1, 2))
    expected |= {"app_webhook_total/kinguin/duplicate": 3, "app_webhook_total/kinguin/invalid": 1}
    assert await read(page, database) == expected
    page.says(200, failed=(5,))  # restarted, and already beyond what it had
    expected |= {"bitloot_app_restarts_total": 1, "app_email_fail_total": 8}
    assert await read(page, database, times=2) == expected
    page.says(200, failed=(4,))  # a start time that did not move does not hide a restart
    expected |= {"bitloot_app_restarts_total": 2, "app_email_fail_total": 12}
    assert await read(page, database) == expected


async def test_without_a_store_restarts_are_an_ordinary_counter(page: Page) -> None:
    """It needs nothing but the page."""
    page.says(100)
    app = App(page.url, NAME, None)
    await app.collect()
    page.says(200)
    await app.collect()
    assert [sample.value for sample in app.counts() if sample.metric.name == "bitloot_app_restarts_total"] == [(1,)]
    await app.stop()


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("<html>", 200),
        ("", 200),
        ("somebody_elses_counter_total 1\n", 200),
        ("email_send_failed NaN\n", 200),
        ("email_send_failed -1\n", 200),
        ("x" * 5_000_000, 200),
        ("no", 503),
    ],
    ids=["html", "empty", "other", "nan", "negative", "huge", "error"],
)
async def test_a_page_that_is_none_loses_nothing(page: Page, database: str, text: str, status: int) -> None:
    """An error that says what to check; the next good page goes on from the last one."""
    page.says(100, duplicates=1)
    app = App(page.url, NAME, database)
    await app.collect()
    page.text, page.status = text, status
    with pytest.raises(SourceError, match="application's /metrics"):
        await app.collect()
    page.status = 200
    page.says(100, duplicates=2)
    await app.collect()
    await app.stop()
    assert (await handed_over(database))["app_webhook_total/kinguin/duplicate"] == 2


async def test_an_application_that_is_away_is_an_error() -> None:
    """Nothing of its URL is repeated."""
    app = App("http://user:hunter2@127.0.0.1:9/metrics", NAME, None)
    with pytest.raises(SourceError, match="is it up") as caught:
        await app.collect()
    assert "hunter2" not in str(caught.value)
    await app.stop()


def test_hostile_labels_are_read_as_text() -> None:
    """Braces, quotes and newlines in labels of the page do not confuse it."""
    hostile = 'email_send_failed{type="a\\"}{\\n,b"} 3\nemail_send_failed{type="ü🚀"} 4\n'
    assert parse(f"{hostile}process_start_time_seconds 5\n") == {
        "email_send_failed": 7,
        "process_start_time_seconds": 5,
    }
