"""The fake providers speak the documented shapes and fail as told."""

from __future__ import annotations

import httpx
import pytest

from demo.providers import RATE_LIMIT, Failure, Kinguin, NowPayments, Resend


async def test_nowpayments_balances_in_both_shapes() -> None:
    """Both documented shapes carry the same balances, and the rate limit counts down."""
    async with NowPayments() as provider, httpx.AsyncClient(base_url=provider.url) as http:
        headers = {"x-api-key": provider.key}
        first = await http.get("/v1/balance", headers=headers)
        assert {"currency": "btc", "balance": 0.042} in first.json()["balances"]
        provider.shape = "map"
        second = await http.get("/v1/balance", headers=headers)
        assert second.json()["btc"] == {"amount": 0.042, "pendingAmount": 0}
        assert second.headers["X-RateLimit-Remaining"] == str(RATE_LIMIT - 2)


async def test_a_key_is_asked_for() -> None:
    """Without its key a provider answers 401; the status page asks for none."""
    async with NowPayments() as payments, Kinguin() as kinguin, Resend() as resend, httpx.AsyncClient() as http:
        assert (await http.get(f"{payments.url}/v1/balance")).status_code == 401
        assert (await http.get(f"{payments.url}/v1/status")).json() == {"message": "OK"}
        assert (await http.get(f"{kinguin.url}/esa/api/v1/balance", headers={"X-Api-Key": "x"})).status_code == 401
        answer = await http.get(f"{kinguin.url}/esa/api/v1/balance", headers={"X-Api-Key": kinguin.key})
        assert answer.json() == {"balance": kinguin.balance}
        message = {"from": "a@example.test", "to": "b@example.test", "subject": "keys"}
        assert (await http.post(f"{resend.url}/emails", json=message)).status_code == 401
        bearer = {"Authorization": f"Bearer {resend.key}"}
        assert (await http.post(f"{resend.url}/emails", json=message, headers=bearer)).status_code == 200
        assert (await http.post(f"{resend.url}/emails", json={}, headers=bearer)).status_code == 422
        assert resend.sent == 1


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (Failure.ERROR, 500),
        (Failure.RATE_LIMITED, 429),
        (Failure.MALFORMED, 200),
        (Failure.WRONG_SHAPE, 200),
        (Failure.EMPTY, 200),
    ],
)
async def test_failures_that_answer(failure: Failure, status: int) -> None:
    """A failure lasts as long as told, then all is well, twice."""
    async with Kinguin() as provider, httpx.AsyncClient(base_url=provider.url) as http:
        headers = {"X-Api-Key": provider.key}
        for _ in range(2):
            provider.fail(failure, times=1)
            answer = await http.get("/esa/api/v1/balance", headers=headers)
            assert answer.status_code == status
            assert '"balance": 512.45' not in answer.text
            assert (await http.get("/esa/api/v1/balance", headers=headers)).json() == {"balance": provider.balance}
        if failure is Failure.RATE_LIMITED:
            assert provider.answered == {429: 2, 200: 2}


async def test_failures_without_an_answer() -> None:
    """A reset breaks the connection, a hang outlasts the caller, and neither keeps the provider from stopping."""
    async with Kinguin() as provider, httpx.AsyncClient(base_url=provider.url, timeout=0.2) as http:
        provider.fail(Failure.RESET)
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get("/esa/api/v1/balance")
        provider.heal()
        provider.fail(Failure.HANG)
        with pytest.raises(httpx.ReadTimeout):
            await http.get("/esa/api/v1/balance")
        provider.heal()
        assert (await http.get("/esa/api/v1/balance")).status_code == 401


async def test_a_stopped_provider_refuses_and_comes_back_on_its_port() -> None:
    """Stopping refuses connections; starting again serves the same address."""
    async with Kinguin() as provider, httpx.AsyncClient(base_url=provider.url) as http:
        await provider.stop()
        with pytest.raises(httpx.ConnectError):
            await http.get("/esa/api/v1/balance")
        await provider.start()
        assert (await http.get("/esa/api/v1/balance")).status_code == 401
