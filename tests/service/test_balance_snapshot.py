"""The job `balance-snapshot`: one balance an hour, whatever a single provider does, and old ones forgotten."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo

from demo.providers import Failure, Kinguin, NowPayments
from jobs import balance_snapshot
from jobs.balance_snapshot import JOB, Result
from opsctl.cli import cli
from opslib.errors import JobError, SourceError
from opslib.spec import NoParams
from tests.service.job_kit import a_run


@pytest.fixture
async def kinguin() -> AsyncIterator[Kinguin]:
    """Kinguin, well."""
    async with Kinguin() as provider:
        yield provider


@pytest.fixture
async def nowpayments() -> AsyncIterator[NowPayments]:
    """NOWPayments, well."""
    async with NowPayments() as provider:
        yield provider


@pytest.fixture
def dsn(database: str) -> str:
    """The database as a job logs in: a member of `ops_jobs` and nothing else."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS balance_job")
        owner.execute("CREATE ROLE balance_job LOGIN IN ROLE ops_jobs")
    return make_conninfo(database, user="balance_job")


async def snapshot(dsn: str, *providers: Kinguin | NowPayments) -> Result:
    """Run the job beside the loop that serves the providers."""
    env = {"DATABASE_URL": dsn}
    for provider in providers:
        name, base = ("KINGUIN", "BASE_URL") if isinstance(provider, Kinguin) else ("NOWPAYMENTS", "BASE")
        env |= {f"{name}_API_KEY": provider.key, f"{name}_{base}": provider.url}
    return await asyncio.to_thread(balance_snapshot.run, a_run(JOB.name, **env), NoParams())


def kept(database: str) -> list[tuple[str, str, float]]:
    """What the table holds, oldest first."""
    with psycopg.connect(database) as owner:
        rows = owner.execute("SELECT provider, currency, amount FROM ops.balances ORDER BY taken_at, 1, 2").fetchall()
    return [(provider, currency, float(amount)) for provider, currency, amount in rows]


async def test_once_an_hour(database: str, dsn: str, kinguin: Kinguin, nowpayments: NowPayments) -> None:
    """Every currency once; run again at once, nothing new; an hour later, once more."""
    result = await snapshot(dsn, kinguin, nowpayments)
    assert result == Result(kept={"nowpayments": 3, "kinguin": 1}, pruned=0)
    assert sorted(kept(database)) == [
        ("kinguin", "EUR", 512.45),
        ("nowpayments", "BTC", 0.042),
        ("nowpayments", "ETH", 1.5),
        ("nowpayments", "USDTTRC20", 815.25),
    ]
    kinguin.balance = 400.0
    assert (await snapshot(dsn, kinguin, nowpayments)).kept == {"nowpayments": 0, "kinguin": 0}
    with psycopg.connect(database) as owner:
        owner.execute("UPDATE ops.balances SET taken_at = taken_at - interval '1 hour'")
    assert (await snapshot(dsn, kinguin)).kept == {"kinguin": 1}
    assert kept(database)[-1] == ("kinguin", "EUR", 400.0)


async def test_one_provider_away_costs_its_own_balance_only(
    database: str, dsn: str, kinguin: Kinguin, nowpayments: NowPayments
) -> None:
    """The run fails and says who; what the other said is kept."""
    nowpayments.fail(Failure.ERROR)
    with pytest.raises(JobError, match=r"nowpayments /v1/status: answered 500"):
        await snapshot(dsn, kinguin, nowpayments)
    assert kept(database) == [("kinguin", "EUR", 512.45)]


async def test_old_ones_are_forgotten(database: str, dsn: str, kinguin: Kinguin) -> None:
    """Older than 90 days goes; and whoever asks the function for more keeps the last eight days."""
    with psycopg.connect(database) as owner:
        owner.execute(
            """INSERT INTO ops.balances SELECT 'kinguin', 'EUR', n, now() - n * interval '1 day'
               FROM unnest(ARRAY[91, 89, 9, 7]) AS n"""
        )
    assert (await snapshot(dsn, kinguin)).pruned == 1
    assert [amount for _, _, amount in kept(database)] == [89, 9, 7, 512.45]
    with psycopg.connect(database) as owner:
        assert owner.execute("SELECT ops.balances_prune(now())").fetchone() == (2,)
    assert [amount for _, _, amount in kept(database)] == [7, 512.45]


async def test_no_right_says_so(database: str, kinguin: Kinguin) -> None:
    """A login that is no member of ops_jobs is told which role it needs."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS balance_stranger")
        owner.execute("CREATE ROLE balance_stranger LOGIN")
    with pytest.raises(SourceError, match="members of ops_jobs"):
        await snapshot(make_conninfo(database, user="balance_stranger"), kinguin)


def listed(*how: str) -> str:
    """What `opsctl balances list` prints."""
    ended = CliRunner().invoke(cli, ["balances", "list", *how])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_balances_list(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of each, what a day cost, how long it lasts; with less than a day of history nobody knows."""
    monkeypatch.setenv("DATABASE_URL", database)
    assert "opsctl jobs enqueue balance-snapshot" in listed()
    with psycopg.connect(database) as owner:
        owner.execute(
            """INSERT INTO ops.balances (provider, currency, amount, taken_at)
               SELECT 'kinguin', 'EUR', amount, now() - days * interval '1 day'
               FROM (VALUES (30, 9999), (2, 300), (1, 200), (0, 100)) AS b (days, amount)
               UNION ALL SELECT 'nowpayments', 'BTC', 0.042, now() - interval '1 hour'"""
        )
    kinguin, nowpayments = json.loads(listed("--json"))
    assert (kinguin["currency"], kinguin["amount"], kinguin["spent_a_day"]) == ("EUR", 100, 100)
    assert kinguin["lasts"] == pytest.approx(86_400)
    assert (nowpayments["amount"], nowpayments["lasts"]) == (0.042, None)
    assert nowpayments["age"] >= 3600
    assert "kinguin,EUR,100," in listed("--csv")
