"""The provider client against real servers that fail in every way a provider has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate

import pytest
from aiohttp import web

from opslib import http
from opslib.errors import SourceError
from opslib.http import Endpoint, ProviderClient

KEY = "hunter2-planted"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.at


@asynccontextmanager
async def served(*handlers: Handler) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """A server that lets `handlers` answer in turn, the last one for ever; its URL and what it was asked."""
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request)
        return await handlers[min(len(asked), len(handlers)) - 1](request)

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


@asynccontextmanager
async def asking(url: str, **clocks: Callable[[], float]) -> AsyncIterator[ProviderClient]:
    """A client of `url`."""
    client = ProviderClient(
        Endpoint("kinguin", url, {"X-Api-Key": KEY}, "KINGUIN_BASE_URL", "KINGUIN_API_KEY"), **clocks
    )
    try:
        yield client
    finally:
        await client.close()


def says(status: int = 200, text: str = '{"balance": 1}', **headers: str) -> Handler:
    """A handler that always says so."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(
            status=status, text=text, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    return answer


async def hang(_: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


async def reset(request: web.Request) -> web.StreamResponse:
    """Cut the connection."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def drip(request: web.Request) -> web.StreamResponse:
    """A byte now and then, each in time, for ever."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


async def refused(client: ProviderClient, path: str = "/balance") -> str:
    """The message of the error; it names the provider and holds neither key nor chained text."""
    with pytest.raises(SourceError, match="kinguin") as caught:
        await client.get(path)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert KEY not in str(caught.value)
    return str(caught.value)


async def test_an_answer_and_what_is_remembered() -> None:
    """JSON comes back, the key goes out, latency and quota are noted; twice."""
    async with served(says(X_RateLimit_Remaining="7")) as (url, asked), asking(url) as client:
        assert (client.latency, client.remaining, client.quota_errors) == (None, None, 0)
        for _ in range(2):
            assert await client.get("/balance") == {"balance": 1}
        assert client.latency is not None
        assert 0 < client.latency < 5
        assert (client.remaining, client.quota_errors) == (7, 0)
        assert [request.headers["X-Api-Key"] for request in asked] == [KEY, KEY]


@pytest.mark.parametrize("failing", [says(502), says(503), says(504), reset], ids=["502", "503", "504", "reset"])
async def test_passing_faults_are_retried(failing: Handler) -> None:
    """Twice in a row is survived, thrice is an error."""
    async with served(failing, failing, says()) as (url, asked), asking(url) as client:
        assert await client.get("/balance") == {"balance": 1}
        assert len(asked) == 3
    async with served(failing) as (url, asked), asking(url) as client:
        await refused(client)
        assert len(asked) == http.ATTEMPTS


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        (says(500, f"oops {KEY}"), "500; look at its status page"),
        (says(401), "401; check KINGUIN_API_KEY"),
        (says(403), "403; check KINGUIN_API_KEY"),
        (says(404), "404; check KINGUIN_BASE_URL"),
        (says(200, f"<html>{KEY}"), "no JSON; check KINGUIN_BASE_URL"),
        (says(200, ""), "no JSON"),
        (says(200, '{"balance": NaN}'), "no JSON"),
        (says(200, "[" * 100_000), "no JSON"),
        (says(200, "9" * 5000), "no JSON"),
        (says(200, "\x00\ud7ff"), "no JSON"),
        (says(200, '"' + "x" * http.MAX_BYTES), "more than 1048576 bytes"),
        (says(200, "x", Content_Encoding="deflate"), "compressed"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)  # fmt: skip
async def test_lasting_faults_are_told_at_once(answer: Handler, advice: str) -> None:
    """No second attempt; the message says what to do."""
    async with served(answer) as (url, asked), asking(url) as client:
        assert advice in await refused(client)
        assert len(asked) == 1


async def test_refused_connection() -> None:
    """Nobody listens: an error at once, no waiting."""
    async with served(says()) as (url, _):
        pass
    async with asking(url) as client:
        started = time.monotonic()
        assert "cannot be reached" in await refused(client)
        assert time.monotonic() - started < http.BUDGET


@pytest.mark.parametrize("stuck", [hang, drip])
async def test_a_stuck_answer_ends_with_the_budget(stuck: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hung or dripping: the whole question takes no longer than its budget."""
    monkeypatch.setattr(http, "BUDGET", 0.5)
    async with served(stuck) as (url, _), asking(url) as client:
        started = time.monotonic()
        assert "no complete answer within 0.5 s" in await refused(client)
        assert time.monotonic() - started < 3, "its own timeout, not the budget, was what cut it"


async def test_read_timeouts_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """One hung answer costs one attempt."""
    monkeypatch.setattr(http, "TIMEOUT", 0.2)
    async with served(hang, says()) as (url, asked), asking(url) as client:
        assert await client.get("/balance") == {"balance": 1}
        assert len(asked) == 2
    async with served(hang) as (url, asked), asking(url) as client:
        assert "did not answer in time" in await refused(client)
        assert len(asked) == http.ATTEMPTS


async def test_the_key_follows_no_redirect() -> None:
    """Neither elsewhere nor on the same host, and the target is not repeated."""
    async with served(says()) as (other, asked_there):
        async with served(says(302, Location=f"{other}/?{KEY}")) as (url, _), asking(url) as client:
            assert "302; check KINGUIN_BASE_URL" in await refused(client)
        assert asked_there == []


async def test_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whom we show the key is said by the settings alone."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with served(says()) as (url, _), asking(url) as client:
        assert await client.get("/balance") == {"balance": 1}


async def test_retry_after_is_waited_for() -> None:
    """A pause that fits the budget is waited and the quota error counted; the next question is not delayed."""
    async with served(says(429, Retry_After="0.3"), says()) as (url, asked), asking(url) as client:
        started = time.monotonic()
        assert await client.get("/balance") == {"balance": 1}
        assert 0.3 <= time.monotonic() - started < http.BUDGET
        assert await client.get("/balance") == {"balance": 1}
        assert (len(asked), client.quota_errors) == (3, 1)


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"Retry_After": "60"}, 60),
        ({"Retry_After": formatdate(1_800_000_060, usegmt=True)}, 60),
        ({"Retry_After": "Fri, 15 Jan 2027 08:01:00 -0000"}, 60),
        ({"X_RateLimit_Reset": "90"}, 90),
        ({"X_RateLimit_Reset": "1800000090"}, 90),
        ({"X_RateLimit_Reset": "1800000090000"}, 90),
        ({"Retry_After": "999999999999999"}, http.MAX_PAUSE),
        ({"Retry_After": "Fri, 31 Dec 9999 23:59:59 GMT"}, http.MAX_PAUSE),
    ],
)
async def test_a_long_pause_is_remembered(headers: dict[str, str], pause: float) -> None:
    """Longer than the budget: give up, and do not ask again before it is over."""
    clock = Clock()
    async with (
        served(says(429, **headers), says()) as (url, asked),
        asking(url, clock=clock, now=lambda: 1_800_000_000) as client,
    ):
        assert "429; its quota is used" in await refused(client)
        clock.at += pause - http.BUDGET - 1
        assert f"stay away for another {http.BUDGET + 1:.0f} s" in await refused(client, "/other")
        assert len(asked) == 1
        clock.at += http.BUDGET + 1
        assert await client.get("/balance") == {"balance": 1}
        assert client.quota_errors == 1


@pytest.mark.parametrize("value", ["soon", "-5", "nan", "inf", "", "Fri, 99 Foo 2027"])
async def test_nonsense_in_headers_is_ignored(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 429 that says nothing useful pauses for a moment; a remaining that is no number is none."""
    monkeypatch.setattr(http, "DEFAULT_PAUSE", 0.05)
    handler = says(429, Retry_After=value, X_RateLimit_Reset=value, X_RateLimit_Remaining=value)
    async with served(handler, says()) as (url, _), asking(url) as client:
        assert await client.get("/balance") == {"balance": 1}
        assert (client.remaining, client.quota_errors) == (None, 1)


async def test_a_used_up_quota_pauses_without_a_429() -> None:
    """Remaining 0 and a reset time: the next question waits for it."""
    clock = Clock()
    async with (
        served(says(X_RateLimit_Remaining="0", X_RateLimit_Reset="120")) as (url, asked),
        asking(url, clock=clock) as client,
    ):
        assert await client.get("/balance") == {"balance": 1}
        await refused(client)
        assert (len(asked), client.quota_errors, client.remaining) == (1, 0, 0)


async def test_the_circuit_opens_probes_and_closes() -> None:
    """Five failed questions open it for half a minute; then one probe decides. Another path is another circuit."""
    clock = Clock()
    sick = [says(500)] * 6
    async with served(*sick, says()) as (url, asked), asking(url, clock=clock) as client:
        for _ in range(5):
            assert "500" in await refused(client)
        assert "failed 5 times in a row; asking again in 30 s" in await refused(client)
        clock.at += 29
        await refused(client)
        assert len(asked) == 5
        clock.at += 1
        assert "500" in await refused(client)  # the probe
        assert "failed 6 times" in await refused(client)
        assert len(asked) == 6
        assert await client.get("/status") == {"balance": 1}
        clock.at += 30
        assert await client.get("/balance") == {"balance": 1}
        assert await client.get("/balance") == {"balance": 1}


async def test_one_probe_at_a_time() -> None:
    """While the probe is out nobody else asks; a probe that was cancelled does not hold the circuit for ever."""
    clock = Clock()
    async with served(*[says(500)] * 5, hang, says()) as (url, asked), asking(url, clock=clock) as client:
        for _ in range(5):
            await refused(client)
        clock.at += 30
        probe = asyncio.create_task(client.get("/balance"))
        while len(asked) < 6:  # noqa: ASYNC110 - bounded by the test's timeout
            await asyncio.sleep(0.01)
        assert "in a row" in await refused(client)
        probe.cancel()
        await asyncio.wait({probe})
        clock.at += 30
        assert await client.get("/balance") == {"balance": 1}
