"""The queue below the jobs is procrastinate's own, whole and tied to our schema; the history outlives the contract."""

from __future__ import annotations

from pathlib import Path

import psycopg
from procrastinate.schema import SchemaManager

from demo.postgres import PostgresServer
from opslib.contract import contract, migrate

MIGRATION = next(step for step in migrate.load() if step.name == "jobs")


def test_the_schema_is_the_packages() -> None:
    """Between its marks stands what the pinned package ships; only CREATE EXTENSION plpgsql is left out."""
    shipped = SchemaManager.get_schema().partition("-- Enums\n")[2].strip()
    assert shipped
    ours = MIGRATION.up.partition("-- Enums\n")[2].partition("-- End of procrastinate's schema.")[0].strip()
    assert ours == shipped


def test_no_function_finds_its_tables_by_the_callers_path(database: str) -> None:
    """Each function of the queue and of the jobs has a search_path of its own, and is nobody's by default."""
    with psycopg.connect(database) as connection:
        loose = connection.execute(
            """SELECT p.oid::regprocedure::text FROM pg_proc p
               WHERE p.pronamespace = 'ops'::regnamespace AND p.proname ~ '^(procrastinate|job)_'
                 AND (p.proconfig IS NULL OR p.proconfig::text NOT LIKE '%search_path=ops, pg_temp%'
                      OR has_function_privilege('public', p.oid, 'EXECUTE'))"""
        ).fetchall()
        assert loose == []
        found = connection.execute("SELECT count(*) FROM pg_proc WHERE proname LIKE 'procrastinate\\_%'").fetchone()
        assert found
        assert found[0] > 15


def test_history_outlives_the_contract(database: str) -> None:
    """Suspended and applied again: the view of runs is ours, and stays; so does who may read it."""
    with psycopg.connect(database, autocommit=True) as connection:
        for change in (contract.suspend, contract.apply, contract.suspend):
            change(database)
            assert connection.execute("SELECT count(*) FROM ops_view.job_runs").fetchone() == (0,)
            readable = "SELECT has_table_privilege('ops_grafana', 'ops_view.job_runs', 'SELECT')"
            assert connection.execute(readable).fetchone() == (True,)
            usable = "SELECT has_schema_privilege('ops_grafana', 'ops_view', 'USAGE')"
            assert connection.execute(usable).fetchone() == (True,)
        contract.apply(database)
        assert contract.suspend(database).views


def test_ops_in_a_database_of_its_own(own_postgres: PostgresServer) -> None:
    """Where no contract ever was, the migration makes the schema and takes it away again."""
    dsn = own_postgres.dsn()
    for _ in range(2):
        migrate.up(dsn)
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT count(*) FROM ops_view.job_runs").fetchone() == (0,)
        migrate.down(dsn, 4)
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT to_regnamespace('ops_view')").fetchone() == (None,)
            kept = (
                "SELECT count(*) FROM pg_type WHERE typnamespace = 'ops'::regnamespace AND typname ~ '^procrastinate'"
            )
            assert connection.execute(kept).fetchone() == (0,)


def test_the_licence_is_named() -> None:
    """What is somebody else's says whose."""
    assert "MIT licence" in MIGRATION.up
    assert (Path(__file__).parents[2] / "docs" / "decisions" / "0005-jobs.md").exists()
