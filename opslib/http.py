"""The HTTP client for providers: bounded in time, size and retries, polite to rate limits, silent about what it got.

Every failure is a `SourceError` that names the provider, the status and what to do, and never the body, the query or
the key: exceptions of the library below are not chained, because their text can quote the other side's bytes.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx
import stamina

from opslib.circuit import Circuit
from opslib.errors import NotFoundError, SourceError

BUDGET = 5.0
"""Seconds for one question with all its retries."""
TIMEOUT = httpx.Timeout(3.0, connect=2.0)
ATTEMPTS = 3
MAX_BYTES = 1024 * 1024
MAX_PAUSE = 3600.0
"""Seconds we stay away at most, whatever a header says."""

DEFAULT_PAUSE = 1.0
"""Seconds we stay away after a 429 that does not say how long."""

_TRANSIENT_STATUS = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
# The second line is a connection the other side dropped: reset, or closed while idle.
_TRANSIENT = (
    *(httpx.ConnectTimeout, httpx.ReadTimeout),
    *(httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError),
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A provider as the settings describe it.

    Attributes:
        name: For messages and labels.
        base_url: Without a slash at the end.
        headers: Sent with every question; they hold the key.
        base_setting: The setting that names `base_url`, for messages.
        key_setting: The setting that holds the key, for messages.
    """

    name: str
    base_url: str
    headers: Mapping[str, str] = field(repr=False)
    base_setting: str
    key_setting: str


class _StatusError(Exception):
    """An answer that is not the one wanted."""

    def __init__(self, status: int, method: str) -> None:
        super().__init__(str(status))
        self.status = status
        self.method = method


class ProviderClient:
    """Asks one provider.

    Args:
        endpoint: Whom.
        clock: Seconds, monotonic.
        now: Unix time, to read dates in headers.

    Attributes:
        latency: Seconds the last answer took, whatever its status; None before the first.
        remaining: What the last rate-limit header said is left; None if none was sent yet.
        quota_errors: Answers 429 so far.
    """

    def __init__(
        self, endpoint: Endpoint, *, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self.endpoint = endpoint
        self.latency: float | None = None
        self.remaining: float | None = None
        self.quota_errors = 0
        self._clock = clock
        self._now = now
        self._not_before = -math.inf
        self._circuits: dict[str, Circuit] = {}
        # No redirects: the key would travel along. No proxy of the environment: whom we talk to is a setting.
        # No compression: the size of an answer is known before it is unpacked.
        self._http = httpx.AsyncClient(
            headers={**endpoint.headers, "Accept": "application/json", "Accept-Encoding": "identity"},
            timeout=TIMEOUT,
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=2),
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def get(self, path: str) -> Any:
        """The JSON at `path`, within `BUDGET` seconds.

        Raises:
            SourceError: Unreachable, hung, refused, over its limits, or no JSON.
        """
        circuit = self._circuits.setdefault(path, Circuit(self._clock))
        if wait := circuit.enter():
            raise self._error(path, f"failed {circuit.failures} times in a row; asking again in {wait:.0f} s")
        succeeded = False
        try:
            answer = _parse(await self._within_budget(path, lambda deadline: self._retried(path, deadline)))
            succeeded = True
        except ValueError:
            raise self._error(path, f"answered no JSON; check {self.endpoint.base_setting}") from None
        finally:
            circuit.leave(succeeded=succeeded)
        return answer

    async def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask for a change, once: what may have happened already is not asked for again. JSON, or None.

        Args:
            method: `POST`, `PATCH` or `DELETE`.
            path: Where, with everything in it quoted.
            body: Sent as JSON.

        Raises:
            NotFoundError: There is nothing at `path`.
            SourceError: Unreachable, hung, refused, or over its limits. The change may have happened all the same.
        """
        answer = await self._within_budget(path, lambda _: self._ask(path, method, body))
        try:
            return _parse(answer) if answer else None
        except ValueError:
            return None  # the status said that it was done; in which words matters to nobody

    async def _within_budget(self, path: str, ask: Callable[[float], Awaitable[bytes]]) -> bytes:
        deadline = self._clock() + BUDGET
        try:
            async with asyncio.timeout(BUDGET):
                await asyncio.sleep(self._pause(path, deadline))
                return await ask(deadline)
        except TimeoutError:
            raise self._error(path, f"gave no complete answer within {BUDGET:g} s; is it up?") from None
        except _StatusError as exc:
            if exc.status == HTTPStatus.NOT_FOUND and exc.method != "GET":
                raise NotFoundError(f"{self.endpoint.name} {path}: there is no such thing there") from None
            raise self._error(path, f"answered {exc.status}; {self._advice(exc)}") from None
        except httpx.TimeoutException:
            raise self._error(path, "did not answer in time; is it up, and may this machine reach it?") from None
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            advice = f"is it up, and is {self.endpoint.base_setting} right?"
            raise self._error(path, f"cannot be reached ({type(exc).__name__}); {advice}") from None

    async def _retried(self, path: str, deadline: float) -> bytes:
        def again(exc: Exception) -> bool | float:
            if not isinstance(exc, _StatusError):
                return isinstance(exc, _TRANSIENT)
            pause = self._not_before - self._clock()
            if pause > 0:
                return pause < deadline - self._clock() and pause
            return exc.status in _TRANSIENT_STATUS

        async for attempt in stamina.retry_context(
            on=again, attempts=ATTEMPTS, timeout=BUDGET, wait_initial=0.1, wait_max=1.0, wait_jitter=0.1
        ):
            with attempt:
                return await self._ask(path, "GET")
        raise AssertionError  # pragma: no cover - the last attempt raises its own

    async def _ask(self, path: str, method: str, change: Mapping[str, Any] | None = None) -> bytes:
        started = self._clock()
        async with self._http.stream(method, self.endpoint.base_url + path, json=change) as answer:
            self._note(answer)
            # A question has one good answer; a change may also be accepted, created, or done without a word.
            good = answer.is_success if method != "GET" else answer.status_code == HTTPStatus.OK
            body = await self._body(path, answer) if good else b""
        self.latency = self._clock() - started
        if not good:
            raise _StatusError(answer.status_code, method)
        return body

    async def _body(self, path: str, answer: httpx.Response) -> bytes:
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise self._error(path, "answered compressed, which was not asked for; is a proxy in between?")
        body = bytearray()
        async for part in answer.aiter_raw():
            body += part
            if len(body) > MAX_BYTES:
                raise self._error(path, f"answered more than {MAX_BYTES} bytes; check {self.endpoint.base_setting}")
        return bytes(body)

    def _note(self, answer: httpx.Response) -> None:
        """Remember what the answer says about our quota."""
        remaining = _number(answer.headers.get("X-RateLimit-Remaining"))
        if remaining is not None:
            self.remaining = remaining
        refused = answer.status_code == HTTPStatus.TOO_MANY_REQUESTS
        self.quota_errors += refused
        after = self._seconds(answer.headers.get("Retry-After"))
        if after is None and (refused or remaining == 0):
            after = self._seconds(answer.headers.get("X-RateLimit-Reset"))
        if refused and after is None:
            after = DEFAULT_PAUSE
        if after is not None and (remaining == 0 or answer.status_code in _TRANSIENT_STATUS):
            self._not_before = self._clock() + min(after, MAX_PAUSE)

    def _seconds(self, text: str | None) -> float | None:
        """Seconds from now: a number of them, a Unix time (in s or ms), or an HTTP date."""
        number = _number(text)
        if number is not None:
            if number > 1e9:  # noqa: PLR2004 - no pause is 30 years
                number = number / (1000 if number > 1e11 else 1) - self._now()  # noqa: PLR2004 - ms since 1973
            return max(number, 0.0)
        try:
            date = parsedate_to_datetime(text or "")
        except (ValueError, OverflowError):
            return None
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max((date - datetime.fromtimestamp(self._now(), UTC)).total_seconds(), 0.0)

    def _pause(self, path: str, deadline: float) -> float:
        """Seconds to wait before asking, because the provider said so."""
        now = self._clock()
        if self._not_before >= deadline:
            raise self._error(
                path, f"asked us to stay away for another {self._not_before - now:.0f} s; its quota is used"
            )
        return max(self._not_before - now, 0.0)

    def _advice(self, exc: _StatusError) -> str:
        status = exc.status
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return f"check {self.endpoint.key_setting}"
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return "its quota is used; does something else use the same key?"
        if exc.method != "GET":
            return "its log says why"
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return "look at its status page"
        return f"check {self.endpoint.base_setting}"

    def _error(self, path: str, what: str) -> SourceError:
        return SourceError(f"{self.endpoint.name} {path}: {what}")


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _parse(body: bytes) -> Any:
    """Read JSON.

    Raises:
        ValueError: It is none.
    """
    try:
        return json.loads(body, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("too deep") from None


def _refuse(constant: str) -> None:
    """NaN and Infinity are Python's idea of JSON."""
    raise ValueError(constant)
