"""The contract in a live database: made and removed, and never in the way of the application."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import errors
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from demo import app_schema
from demo.postgres import PostgresServer
from demo.processes import wait_until
from opsctl.commands.contract import contract as command
from opslib.areas.queries import NAMED
from opslib.contract import canonical, check, contract
from opslib.errors import ContractError, SourceError


@pytest.fixture
def app(database: str) -> Iterator[psycopg.Connection]:
    """The application's own connection to a database where the contract stands."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def problems(connection: psycopg.Connection) -> list[str]:
    """What `ops_contract_ok` is computed from."""
    return canonical.problems(connection.cursor(row_factory=dict_row).execute(NAMED["contract_columns"].sql).fetchall())


def findings(database: str) -> list[str]:
    """What `opsctl contract check` says."""
    return [str(finding) for finding in check.check(database)]


def test_fresh_contract_holds(database: str, app: psycopg.Connection) -> None:
    """On the database as it should be there is nothing to say, and saying so leaves nothing behind."""
    before = app.execute("SELECT count(*) FROM pg_class").fetchone()
    assert findings(database) == []
    assert problems(app) == []
    assert app.execute("SELECT count(*) FROM pg_class").fetchone() == before


def test_application_migrates_between_suspend_and_apply(database: str, app: psycopg.Connection) -> None:
    """Views block the application's DDL; suspended they do not; apply brings back what fits and names the rest."""
    with pytest.raises(errors.DependentObjectsStillExist):
        app.execute('ALTER TABLE orders DROP COLUMN "completionEmailSent"')
    with pytest.raises(errors.FeatureNotSupported):
        app.execute("ALTER TABLE payments ALTER COLUMN confirmations TYPE text")

    assert set(contract.suspend(database).views) == set(canonical.VIEWS)
    assert contract.suspend(database).views == (), "a second suspend has nothing to do"
    assert len(problems(app)) == len(canonical.VIEWS)

    app.execute('ALTER TABLE orders DROP COLUMN "completionEmailSent"')
    app.execute("ALTER TABLE payments ALTER COLUMN confirmations TYPE text")
    app.execute('ALTER TABLE users RENAME COLUMN "isSuspended" TO blocked')

    outcome = contract.apply(database)
    assert {finding.where: finding.problem for finding in outcome.findings} == {
        "view orders": "column o.completionEmailSent does not exist",
        "view payments": "column payments.confirmations is text, not bigint or integer",
        "view users": "column u.isSuspended does not exist",
        "function user_ids_newest": 'column "isSuspended" does not exist',
    }
    assert set(outcome.views) == set(canonical.VIEWS) - {"orders", "payments", "users"}
    assert problems(app) == ["view orders is missing", "view payments is missing", "view users is missing"]

    app.execute('ALTER TABLE orders ADD COLUMN "completionEmailSent" boolean NOT NULL DEFAULT false')
    app.execute("ALTER TABLE payments ALTER COLUMN confirmations TYPE integer USING confirmations::integer")
    app.execute('ALTER TABLE users RENAME COLUMN blocked TO "isSuspended"')
    assert contract.apply(database).findings == ()
    assert problems(app) == []
    assert findings(database) == []


def test_suspend_leaves_nothing_that_depends_on_the_application(database: str, app: psycopg.Connection) -> None:
    """Once suspended, even the application's tables may go."""
    contract.suspend(database)
    left = app.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'ops_view'::regnamespace ORDER BY 1"
    ).fetchall()
    assert [name for (name,) in left] == ["audit_log", "job_runs"], "those of our own tables stay"
    tables = app.execute(
        """SELECT string_agg(oid::regclass::text, ',') FROM pg_class
           WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"""
    ).fetchone()
    assert tables
    app.execute(f"DROP TABLE {tables[0]}")


def test_state_is_recorded(database: str, app: psycopg.Connection) -> None:
    """What was applied and since when it is suspended stands in the ops schema; check repeats it."""

    def state() -> tuple[str, bool, bool] | None:
        return app.execute(
            "SELECT adapter, applied_at IS NOT NULL, suspended_at IS NOT NULL FROM ops.contract_state"
        ).fetchone()

    assert state() == ("bitloot", True, False)
    contract.suspend(database)
    assert state() == ("bitloot", True, True)
    assert any("suspended since" in finding for finding in findings(database))
    contract.apply(database)
    assert state() == ("bitloot", True, False)
    app.execute("UPDATE ops.contract_state SET checksum = 'older'")
    assert findings(database) == ["state: another version of bitloot.sql was applied; run `opsctl contract apply`"]


def test_without_ops_schema_says_so(app_database: str) -> None:
    """The views are made all the same, and what is missing is said."""
    outcome = contract.apply(app_database)
    assert set(outcome.views) == set(canonical.VIEWS)
    assert outcome.findings == ()
    assert "run `opsctl migrate up`" in outcome.notes[0]
    assert any(finding.startswith("state: could not be checked") for finding in findings(app_database))


def test_application_on_another_server(database: str, own_postgres: PostgresServer) -> None:
    """Roles are made where the views are; the state is recorded where our tables are."""
    app_schema.create(own_postgres.dsn())
    outcome = contract.apply(own_postgres.dsn(), database)
    assert (outcome.findings, outcome.notes) == ((), ())
    assert check.check(own_postgres.dsn(), database) == []
    own_postgres.kill()
    outcome = contract.suspend(database, own_postgres.dsn())
    assert outcome.views, "a deployment goes on although our own database is away"
    assert "not recorded" in outcome.notes[0]
    assert any(
        str(finding).startswith("ops database: could not be checked")
        for finding in check.check(database, own_postgres.dsn())
    )


def test_apply_during_a_migration_costs_the_application_nothing(database: str, app: psycopg.Connection) -> None:
    """A migration that holds a table and then wants our view would be a deadlock: we let go first, then finish."""

    def waiting() -> bool:
        found = watcher.execute(
            "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'opsctl%' AND wait_event_type = 'Lock'"
        )
        return found.fetchone() is not None

    # Were there a circle, Postgres would end whoever looks for it first: let that be the application.
    app.execute(f"ALTER DATABASE {app.info.dbname} SET deadlock_timeout = '1min'")
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database, autocommit=True) as watcher:
        with app.transaction():
            app.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            applied = pool.submit(contract.apply, database)
            wait_until(waiting, 60, "apply to wait for the table")
            app.execute("LOCK TABLE ops_view.flags IN ACCESS EXCLUSIVE MODE")  # apply has dropped it and waits for us
        assert applied.result(20).findings == ()
    assert problems(app) == []


def test_readers_never_find_a_view_missing(database: str) -> None:
    """Apply is one transaction: a reader in a loop sees every view at every moment."""
    done = threading.Event()

    def read() -> int:
        reads = 0
        with psycopg.connect(database, autocommit=True) as reader:
            while not done.is_set():
                reader.execute("SELECT count(*) FROM ops_view.orders")
                reads += 1
        return reads

    with ThreadPoolExecutor(1) as pool:
        reads = pool.submit(read)
        try:
            for _ in range(10):
                contract.apply(database)
        finally:
            done.set()
        assert reads.result(10) > 10


def test_view_in_use_for_ever(database: str, app: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that never ends stops us, not the application; the message says how to find it."""
    monkeypatch.setattr(contract, "ATTEMPTS", 2)
    monkeypatch.setattr(contract, "ATTEMPT_SECONDS", 0.05)
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM ops_view.orders")
        with pytest.raises(ContractError, match="see who holds it"):
            contract.suspend(database)
    assert problems(app) == []


def test_view_built_on_ours(database: str, app: psycopg.Connection) -> None:
    """Somebody's view on top of ours is named, and nothing is removed."""
    app.execute("CREATE VIEW public.report AS SELECT status FROM ops_view.orders")
    with pytest.raises(ContractError, match=r"view public\.report depends on view ops_view\.orders; drop it first"):
        contract.suspend(database)
    assert problems(app) == []


def test_as_a_reader(database: str, app: psycopg.Connection) -> None:
    """A role that may only read changes nothing, is told who may, and a check of its own is not green."""
    name = f"reader_{app.info.dbname}"
    app.execute(f"CREATE ROLE {name} LOGIN IN ROLE ops_grafana")
    try:
        dsn = make_conninfo(database, user=name)
        for attempt in (contract.apply, contract.suspend):
            with pytest.raises(SourceError, match=r"must be owner of view .*; connect as the owner"):
                attempt(dsn)
        assert any("could not be checked: permission denied" in finding for finding in findings(dsn))
    finally:
        app.execute(f"DROP ROLE {name}")
    assert problems(app) == []


def run(dsn: str, *arguments: str) -> Result:
    """Run `opsctl contract`."""
    return CliRunner().invoke(command, arguments, env={"DATABASE_URL": dsn, "OPS_DATABASE_URL": ""})


def test_command_line(database: str, app: psycopg.Connection) -> None:
    """Exit 0 when all is well, 1 with one line per finding when it is not, and the same as JSON."""
    assert run(database, "check").output.startswith("the contract holds")
    assert json.loads(run(database, "check", "--json").output) == {"ok": True, "findings": []}
    assert "suspended: app_audit" in run(database, "suspend").output
    assert json.loads(run(database, "suspend", "--json").output)["views"] == []
    app.execute('ALTER TABLE keys DROP COLUMN "viewedAt"')
    applied = run(database, "apply")
    assert applied.exit_code == 1
    assert "view deliveries: column k.viewedAt does not exist; adapt it in bitloot.sql" in applied.output
    checked = run(database, "check", "--json")
    assert checked.exit_code == 1
    assert {"where": "views", "problem": "view deliveries is missing"}.items() <= json.loads(checked.output)[
        "findings"
    ][0].items()
    assert run(database, "check").exit_code == 1
