"""A missing index is named with the statement that makes it; `opsctl contract tune --apply` makes it, once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from exporters.contract import MISSING_INDEXES, Contract
from opsctl.commands import contract as commands
from opslib.areas.queries import NAMED
from opslib.contract import adapter, check, tune
from opslib.contract.indexes import Index
from opslib.postgres import Database

NEEDED = [index for index in adapter.load().indexes if not index.optional]
ADVICE = [index for index in adapter.load().indexes if index.optional]
WEBHOOKS = NEEDED[0]
WEBHOOKS_SQL = (
    "CREATE INDEX CONCURRENTLY ops_webhook_logs_webhooktype_processed_createdat "
    'ON public.webhook_logs ("webhookType", processed, "createdAt")'
)


@pytest.fixture
def app(database: str) -> Iterator[psycopg.Connection]:
    """The application's own connection to a database where the contract stands."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def drop(app: psycopg.Connection, index: Index) -> None:
    """Drop whatever index of the application serves in this one's place."""
    names = app.execute(
        """SELECT x.indexrelid::regclass::text, c.conname FROM pg_index x
           LEFT JOIN pg_constraint c ON c.conindid = x.indexrelid AND c.conrelid = x.indrelid
           WHERE x.indrelid = %s::regclass AND NOT x.indisprimary
             AND (SELECT attname FROM pg_attribute WHERE attrelid = x.indrelid AND attnum = x.indkey[0]) = %s""",
        (f"public.{index.table}", index.names[0]),
    ).fetchall()
    for name, constraint in names:
        drop_it = f'ALTER TABLE {index.table} DROP CONSTRAINT "{constraint}"' if constraint else f"DROP INDEX {name}"
        app.execute(drop_it.encode())


def said(database: str) -> list[str]:
    """What `opsctl contract check` says about indexes."""
    return [str(finding) for finding in check.check(database) if finding.where.startswith("index ")]


@pytest.mark.parametrize("index", NEEDED, ids=lambda index: index.name)
def test_each_index_is_missed_made_and_then_left_alone(database: str, app: psycopg.Connection, index: Index) -> None:
    """Dropped, it is named with its statement; tuned, nothing is said; the second call runs nothing."""
    assert said(database) == []
    drop(app, index)
    (finding,) = said(database)
    assert f"or: {index.statement};" in finding
    assert tune.tune(database, apply=False).done == ()
    assert tune.tune(database, apply=True).done == (index.statement,)
    assert said(database) == []
    again = tune.tune(database, apply=True)
    assert (again.done, again.findings, [lack.index for lack in again.missing]) == ((), (), ADVICE)


def test_every_index_serves_a_query_that_exists_and_none_is_forgotten() -> None:
    """The names in the adapter are names of queries; the statement is the one to run."""
    assert {name for index in NEEDED for name in index.serves} <= NAMED.keys()
    assert WEBHOOKS.statement == WEBHOOKS_SQL


def test_a_partial_index_or_one_in_another_order_does_not_serve(database: str, app: psycopg.Connection) -> None:
    """A longer one does."""
    drop(app, WEBHOOKS)
    app.execute('CREATE INDEX one ON webhook_logs ("webhookType", processed, "createdAt") WHERE processed')
    app.execute('CREATE INDEX two ON webhook_logs (processed, "webhookType", "createdAt")')
    app.execute('CREATE INDEX three ON webhook_logs ("webhookType") INCLUDE (processed, "createdAt")')
    assert len(said(database)) == 1
    app.execute('CREATE INDEX four ON webhook_logs ("webhookType", processed, "createdAt", id)')
    assert said(database) == []


def test_an_aborted_build_is_recognised_and_removed_first(database: str, app: psycopg.Connection) -> None:
    """A transaction that stays open makes the build give up; what it leaves is named, and gone after the next call."""
    drop(app, WEBHOOKS)
    with psycopg.connect(database) as other:
        other.execute("""INSERT INTO webhook_logs ("externalId", "webhookType", payload) VALUES ('1', 'x', '{}')""")
        aborted = tune.tune(database, apply=True, lock_timeout=timedelta(milliseconds=200))
        assert aborted.done == ()
        assert "stayed open" in aborted.findings[0].problem
        (finding,) = said(database)
        assert f"aborted CREATE INDEX CONCURRENTLY left {WEBHOOKS.name}" in finding
    removed = f'DROP INDEX CONCURRENTLY public."{WEBHOOKS.name}"'
    assert f"{removed}; {WEBHOOKS_SQL};" in finding
    assert tune.tune(database, apply=True).done == (removed, WEBHOOKS_SQL)
    assert said(database) == []


async def test_the_exporter_says_it_once_and_goes_on(database: str, app: psycopg.Connection) -> None:
    """A gauge while it lasts, and one line in the log with the statement."""
    reader = Database(database, application_name="test", read_only=True)
    collector = Contract(reader, 60)
    await collector.start()
    drop(app, WEBHOOKS)
    with capture_logs() as logs:
        for _ in range(2):
            assert [s.value for s in await collector.collect() if s.metric is MISSING_INDEXES] == [(1.0,)]
    assert [(line["event"], line["mend"]) for line in logs] == [("contract_index_missing", (WEBHOOKS_SQL,))]
    tune.tune(database, apply=True)
    with capture_logs() as logs:
        assert [s.value for s in await collector.collect() if s.metric is MISSING_INDEXES] == [(0.0,)]
    assert logs == []
    await collector.stop()


def test_the_command_prints_what_to_run_then_runs_it(
    database: str, app: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1 while something needed is missing; the optional one is advice and never made."""
    monkeypatch.setenv("DATABASE_URL", database)
    drop(app, WEBHOOKS)
    shown = CliRunner().invoke(commands.contract, ["tune"])
    assert shown.exit_code == 1
    assert f"{WEBHOOKS_SQL};\n" in shown.stdout
    told = json.loads(CliRunner().invoke(commands.contract, ["tune", "--json"]).stdout)
    assert [lack["statements"][0] for lack in told["missing"] if not lack["index"]["optional"]] == [WEBHOOKS_SQL]
    applied = CliRunner().invoke(commands.contract, ["tune", "--apply"])
    assert (applied.exit_code, f"done: {WEBHOOKS_SQL};" in applied.stdout) == (0, True)
    again = CliRunner().invoke(commands.contract, ["tune", "--apply"])
    assert again.exit_code == 0
    assert "done:" not in again.stdout
    assert "optional, for order_ids_by_email" in again.stdout
    assert "ON public.orders (email);" in again.stdout
