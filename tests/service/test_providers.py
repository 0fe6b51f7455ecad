"""The providers on the page: balances, outages, quota, and how long the money lasts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Self

import psycopg
import pytest

from demo.postgres import PostgresServer
from demo.providers import Failure, Kinguin, NowPayments
from exporters.providers import SUBJECT, Balances, History, collectors
from opslib import http, settings
from opslib.collector import Collector
from opslib.contract import migrate
from opslib.errors import SourceError
from opslib.spec import Sample

Page = dict[tuple[str, ...], float]


@pytest.fixture
async def nowpayments() -> AsyncIterator[NowPayments]:
    """NOWPayments, well."""
    async with NowPayments() as provider:
        yield provider


@pytest.fixture
async def kinguin() -> AsyncIterator[Kinguin]:
    """Kinguin, well."""
    async with Kinguin() as provider:
        yield provider


class Exporter:
    """The subject's collectors, collected when told."""

    def __init__(self, *providers: NowPayments | Kinguin, dsn: str | None = None) -> None:
        env = {"OPS_DATABASE_URL": dsn} if dsn else {}
        for provider in providers:
            if isinstance(provider, Kinguin):
                env |= {"KINGUIN_API_KEY": provider.key, "KINGUIN_BASE_URL": provider.url}
            else:
                env |= {"NOWPAYMENTS_API_KEY": provider.key, "NOWPAYMENTS_BASE": provider.url}
        self.collectors = collectors(settings.load(env))
        self.gauges: dict[Collector, list[Sample]] = {}
        self.errors: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        for collector in self.collectors:
            await collector.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for collector in self.collectors:
            await collector.stop()

    async def round(self) -> Page:
        """Collect all once; what the page says then."""
        self.errors.clear()
        page: Page = {}
        for collector in self.collectors:
            try:
                gauges = await collector.collect()
            except SourceError as exc:
                self.errors[collector.name] = str(exc)
                gauges = []
            for sample in (*gauges, *collector.counts()):
                assert sample.metric in SUBJECT.metrics or sample.metric.name == "ops_checkpoint_lag_seconds"
                page[sample.metric.name.removeprefix("bitloot_provider_"), *sample.labels] = sample.value[0]
        return page


def values(page: Page) -> Page:
    """The page without what measures time."""
    timed = ("latency_seconds", "balance_age_seconds", "ops_checkpoint_lag_seconds")
    return {of: value for of, value in page.items() if of[0] not in timed}


WELL: Page = {
    ("up", "nowpayments"): 1,
    ("balance", "nowpayments", "BTC"): 0.042,
    ("balance", "nowpayments", "ETH"): 1.5,
    ("balance", "nowpayments", "USDTTRC20"): 815.25,
    ("up", "kinguin"): 1,
    ("balance", "kinguin", "EUR"): 512.45,
    ("quota_errors_total", "nowpayments"): 0,
    ("quota_errors_total", "kinguin"): 0,
}


async def test_both_on_keys_alone(nowpayments: NowPayments, kinguin: Kinguin) -> None:
    """No database: balances, latency, age, quota left; in both shapes of NOWPayments the same."""
    async with Exporter(nowpayments, kinguin) as exporter:
        page = await exporter.round()
        assert values(page) == {**WELL, ("rate_limit_remaining", "nowpayments"): 598}
        assert 0 < page["latency_seconds", "kinguin"] < 5
        assert 0 <= page["balance_age_seconds", "kinguin"] < 5
        assert not [of for of in page if of[0] == "ops_checkpoint_lag_seconds"]
        nowpayments.shape = "map"
        assert values(await exporter.round()) == {**WELL, ("rate_limit_remaining", "nowpayments"): 596}


async def test_one_key_one_provider(kinguin: Kinguin) -> None:
    """A stranger with one key gets that provider; without any the subject says which keys it takes."""
    async with Exporter(kinguin) as exporter:
        assert {of[1] for of in await exporter.round()} == {"kinguin"}
    assert SUBJECT.missing(settings.load({}).has) == ("NOWPAYMENTS_API_KEY or KINGUIN_API_KEY",)


@pytest.mark.parametrize(
    "failure", [Failure.ERROR, Failure.RESET, Failure.MALFORMED, Failure.WRONG_SHAPE, Failure.EMPTY, None]
)
async def test_one_fails_the_other_stays(
    nowpayments: NowPayments, kinguin: Kinguin, failure: Failure | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No old balance, up 0, an age that grows, the other untouched; then it is back."""
    monkeypatch.setattr(http, "BUDGET", 2)
    async with Exporter(nowpayments, kinguin) as exporter:
        before = await exporter.round()
        if failure is None:
            await kinguin.stop()
        else:
            kinguin.fail(failure)
        page = await exporter.round()
        assert ("balance", "kinguin", "EUR") not in page
        assert ("latency_seconds", "kinguin") not in page
        assert page["up", "kinguin"] == 0
        assert page["balance_age_seconds", "kinguin"] > before["balance_age_seconds", "kinguin"]
        assert page["balance", "nowpayments", "BTC"] == 0.042
        assert list(exporter.errors) == ["providers/kinguin"]
        assert kinguin.key not in exporter.errors["providers/kinguin"]
        if failure is None:
            await kinguin.start()
        kinguin.heal()
        assert values(await exporter.round()).items() >= WELL.items()


async def test_absent_at_start(kinguin: Kinguin) -> None:
    """Never answered: up 0 and no age, since there is nothing to be old."""
    await kinguin.stop()
    async with Exporter(kinguin) as exporter:
        assert values(await exporter.round()) == {("up", "kinguin"): 0, ("quota_errors_total", "kinguin"): 0}
        assert ("balance_age_seconds", "kinguin") not in await exporter.round()


async def test_a_wrong_key_says_so(nowpayments: NowPayments) -> None:
    """The status page answers, the balance does not: the message names the setting, not the key."""
    async with Exporter(nowpayments) as exporter:
        nowpayments.key = "another"
        page = await exporter.round()
        assert page["up", "nowpayments"] == 0
        assert exporter.errors["providers/nowpayments"] == (
            "nowpayments /v1/balance: answered 401; check NOWPAYMENTS_API_KEY"
        )


async def test_a_status_page_that_is_not_ok(nowpayments: NowPayments) -> None:
    """What it says instead is not repeated."""
    async with Exporter(nowpayments) as exporter:
        nowpayments.answer(200, '{"message": "hunter2"}')
        assert (await exporter.round())["up", "nowpayments"] == 0
        assert "does not say OK" in exporter.errors["providers/nowpayments"]
        assert "hunter2" not in exporter.errors["providers/nowpayments"]


async def test_thousands_of_hostile_currencies(nowpayments: NowPayments) -> None:
    """The page keeps its size, counts what it left out, and shows names as they are."""
    nowpayments.balances = {f'"{{\n{number}\ud7ff': 1.0 for number in range(1000)}
    async with Exporter(nowpayments) as exporter:
        page = await exporter.round()
        assert sum(of[0] == "balance" for of in page) == 200
        assert exporter.collectors[0].dropped == 800


async def test_refused_calls_are_counted_for_good(kinguin: Kinguin, database: str) -> None:
    """Every 429, retried or not; the count goes on after kill -9, and is shown only once it is saved."""
    exporter = Exporter(kinguin, dsn=database)
    await exporter.collectors[1].start()
    kinguin.fail(Failure.RATE_LIMITED, times=2)
    page = await exporter.round()
    assert page["quota_errors_total", "kinguin"] == 2
    assert page["up", "kinguin"] == 1
    history = exporter.collectors[1]
    assert isinstance(history, History)
    await history._checkpoint.close()  # killed: nobody says goodbye
    async with Exporter(kinguin, dsn=database) as successor:
        kinguin.fail(Failure.RATE_LIMITED, times=1)
        page = await successor.round()
        assert page["quota_errors_total", "kinguin"] == 3
        assert page["ops_checkpoint_lag_seconds", "providers/default"] == 0
    await exporter.__aexit__()


async def test_a_database_that_is_away_costs_no_balance(kinguin: Kinguin, own_postgres: PostgresServer) -> None:
    """Balances stay, refused calls stand still while the lag grows; back again, none is lost."""
    dsn = own_postgres.dsn()
    own_postgres.kill()
    kinguin.fail(Failure.RATE_LIMITED, times=1)
    async with Exporter(kinguin, dsn=dsn) as exporter:
        page = await exporter.round()
        assert page["balance", "kinguin", "EUR"] == 512.45
        assert ("quota_errors_total", "kinguin") not in page
        assert list(exporter.errors) == ["providers/history"]
        first = page["ops_checkpoint_lag_seconds", "providers/default"]
        assert (await exporter.round())["ops_checkpoint_lag_seconds", "providers/default"] > first > 0
        with pytest.raises(SourceError):
            await exporter.collectors[1].probe()
        own_postgres.start()
        await asyncio.to_thread(migrate.up, dsn)
        page = await exporter.round()
        assert page["quota_errors_total", "kinguin"] == 1
        assert page["ops_checkpoint_lag_seconds", "providers/default"] == 0
        own_postgres.kill()
        kinguin.fail(Failure.RATE_LIMITED, times=1)
        page = await exporter.round()
        assert page["quota_errors_total", "kinguin"] == 1
        own_postgres.start()
        assert (await exporter.round())["quota_errors_total", "kinguin"] == 2


async def spend(database: str, rows: list[tuple[str, float, float]]) -> None:
    """Snapshots of the past: currency, amount, hours ago."""
    async with await psycopg.AsyncConnection[Any].connect(database) as connection:
        for currency, amount, hours in rows:
            await connection.execute(
                "INSERT INTO ops.balances VALUES ('kinguin', %s, %s, clock_timestamp() - %s * interval '1 h')",
                (currency, amount, hours),
            )


async def test_runway_from_snapshots(kinguin: Kinguin, database: str) -> None:
    """The decreases of a week, top-ups apart, over the time they took; the exporter itself keeps no balance."""
    await spend(database, [("EUR", 512.45, 0)])
    async with Exporter(kinguin, dsn=database) as exporter:
        page = await exporter.round()
        assert ("runway_days", "kinguin", "EUR") not in page  # one snapshot is no history
        # 9 days ago is beyond the week. 100 + 50 spent in 72 hours, then down to 512.45 from 612.45.
        await spend(
            database, [("EUR", 9999, 216), ("EUR", 700, 72), ("EUR", 600, 48), ("EUR", 662.45, 24), ("EUR", 612.45, 2)]
        )
        page = await exporter.round()
        assert page["runway_days", "kinguin", "EUR"] == pytest.approx(512.45 / (250 / 3), rel=0.001)
        kinguin.fail(Failure.ERROR, times=1)
        assert ("runway_days", "kinguin", "EUR") not in await exporter.round()
    async with await psycopg.AsyncConnection[Any].connect(database) as connection:
        rows = await connection.execute(
            "SELECT currency, amount FROM ops.balances WHERE taken_at > now() - interval '1 h'"
        )
        assert [(currency, float(amount)) for currency, amount in await rows.fetchall()] == [("EUR", 512.45)]


async def test_runway_needs_a_day_and_spending(kinguin: Kinguin, database: str) -> None:
    """23 hours of history: unknown. A balance that only grew: unknown."""
    await spend(database, [("EUR", 600, 23), ("EUR", 512.45, 0)])
    async with Exporter(kinguin, dsn=database) as exporter:
        assert ("runway_days", "kinguin", "EUR") not in await exporter.round()
        await spend(database, [("EUR", 100, 30), ("EUR", 200, 29)])
        page = await exporter.round()
        assert page["runway_days", "kinguin", "EUR"] > 0
    async with await psycopg.AsyncConnection[Any].connect(database, autocommit=True) as connection:
        await connection.execute("DELETE FROM ops.balances WHERE amount >= 200")
    async with Exporter(kinguin, dsn=database) as exporter:
        assert ("runway_days", "kinguin", "EUR") not in await exporter.round()


async def test_a_question_that_hangs_is_cut(kinguin: Kinguin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector's deadline leaves room for every question's budget."""
    assert isinstance(Balances.refresh.deadline, float)
    assert Balances.refresh.deadline > 2 * http.BUDGET
    monkeypatch.setattr(http, "BUDGET", 0.3)
    kinguin.fail(Failure.HANG)
    async with Exporter(kinguin) as exporter:
        started = time.monotonic()
        assert (await exporter.round())["up", "kinguin"] == 0
        assert time.monotonic() - started < 3, "the client's own timeout was what cut it"
