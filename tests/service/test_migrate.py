"""Schema `ops` goes up and down by numbered steps, recorded, guarded against edits, gaps and a second runner."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from demo import app_schema
from demo.postgres import PostgresServer
from opsctl.commands.migrate import migrate as command
from opslib.contract import canonical, check, contract, migrate, session
from opslib.contract.migrate import Migration, State
from opslib.errors import MigrationError, SourceError

ALL = [step.version for step in migrate.load()]


def value(dsn: str, sql: str, *parameters: Any) -> Any:
    """The one value of a query."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(sql, parameters or None).fetchone()
    return row[0] if row else None


def execute(dsn: str, sql: str) -> None:
    """Run one statement."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql)


def versions(steps: list[Migration]) -> list[int]:
    """Their numbers."""
    return [step.version for step in steps]


def states(dsn: str, steps: list[Migration] | None = None) -> list[State]:
    """Where each migration stands."""
    return [step.state for step in migrate.status(dsn, steps)]


def objects(dsn: str) -> list[str]:
    """Everything in schema `ops`."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            """SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('ops') AND relkind IN ('r', 'v', 'S')
               UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = to_regnamespace('ops') ORDER BY 1"""
        ).fetchall()
    return [name for (name,) in found]


def test_up_down_up(app_database: str) -> None:
    """Up applies all once, down to zero leaves only the record table, up again makes the same objects."""
    assert states(app_database) == [State.PENDING] * len(ALL)
    assert objects(app_database) == [], "status must write nothing"
    assert versions(migrate.up(app_database)) == ALL
    assert migrate.up(app_database) == []
    made = objects(app_database)
    assert states(app_database) == [State.APPLIED] * len(ALL)
    assert versions(migrate.down(app_database, 0)) == ALL[::-1]
    assert objects(app_database) == ["schema_migrations"]
    assert migrate.down(app_database) == []
    assert versions(migrate.up(app_database)) == ALL
    assert objects(app_database) == made


def test_one_step_at_a_time(app_database: str) -> None:
    """Down takes back one; both ways stop at --to; a target that does not exist is refused."""
    assert versions(migrate.up(app_database, to=2)) == [1, 2]
    assert versions(migrate.down(app_database)) == [2]
    assert migrate.up(app_database, to=1) == []
    assert migrate.down(app_database, to=1) == []
    with pytest.raises(MigrationError, match="there is no migration 99"):
        migrate.up(app_database, to=99)


def test_record_says_who_and_what(app_database: str) -> None:
    """The record holds name, checksum, time and role."""
    migrate.up(app_database)
    step = migrate.status(app_database)[0]
    assert (step.name, step.applied_by) == ("exporters", "postgres")
    assert step.applied_at is not None
    checksum = value(app_database, "SELECT checksum FROM ops.schema_migrations WHERE version = 1")
    assert checksum == migrate.load()[0].checksum


@pytest.mark.parametrize("go", [migrate.up, migrate.down])
def test_edited_is_refused(app_database: str, go: Callable[..., Any]) -> None:
    """A file edited after it was applied stops both ways, and status shows it."""
    migrate.up(app_database)
    steps = list(migrate.load())
    steps[1] = replace(steps[1], up=steps[1].up + "\n-- harmless?")
    with pytest.raises(MigrationError, match=r"0002_roles\.up\.sql was edited after it was applied.*put the file back"):
        go(app_database, migrations=steps)
    assert states(app_database, steps)[:3] == [State.APPLIED, State.EDITED, State.APPLIED]


def test_newer_database_is_refused(app_database: str) -> None:
    """A database a newer release migrated is left alone."""
    migrate.up(app_database)
    known = list(migrate.load())[:-1]
    with pytest.raises(MigrationError, match="use the opsctl that applied it"):
        migrate.down(app_database, migrations=known)
    assert states(app_database, known)[-1] == State.UNKNOWN


def test_gap_is_refused(app_database: str) -> None:
    """A record edited by hand is not papered over."""
    migrate.up(app_database)
    execute(app_database, "DELETE FROM ops.schema_migrations WHERE version = 2")
    with pytest.raises(MigrationError, match=r"0002_roles\.up\.sql was never applied"):
        migrate.up(app_database)


def test_failed_step_leaves_nothing(app_database: str) -> None:
    """What a failing step did before its error is undone; the steps before it stand."""
    steps = [*migrate.load(), Migration(len(ALL) + 1, "broken", "CREATE TABLE ops.half (); SELECT 1 / 0", "SELECT 1")]
    with pytest.raises(MigrationError, match=r"broken\.up\.sql: division by zero; nothing of it was applied"):
        migrate.up(app_database, migrations=steps)
    assert states(app_database, steps) == [*[State.APPLIED] * len(ALL), State.PENDING]
    assert "half" not in objects(app_database)


def test_twice_at_once(app_database: str) -> None:
    """Several runners at once: every step is applied by exactly one of them, nobody fails."""
    barrier = threading.Barrier(4)
    applied: list[int] = []
    failed: list[BaseException] = []

    def run() -> None:
        barrier.wait(10)
        try:
            applied.extend(versions(migrate.up(app_database)))
        except MigrationError as exc:
            failed.append(exc)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    assert sorted(applied) == ALL


def test_waits_are_bounded(app_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock held elsewhere ends in a message that says so, whether it is a table or our turn."""
    migrate.up(app_database)
    monkeypatch.setattr(session, "LOCK_TIMEOUT", timedelta(milliseconds=50))
    monkeypatch.setattr(session, "TURN_TIMEOUT", timedelta(milliseconds=50))
    with psycopg.connect(app_database) as other:
        other.execute("LOCK TABLE ops.ledger_seen")
        with pytest.raises(MigrationError, match="something else holds a lock"):
            migrate.down(app_database, 0)
    with psycopg.connect(app_database) as other:
        other.execute(f"SELECT pg_advisory_xact_lock({session.TURN})")
        with pytest.raises(SourceError, match="another opsctl"):
            migrate.up(app_database)
    assert states(app_database)[0] == State.APPLIED


def roles(dsn: str) -> set[str]:
    """Which of our roles the cluster has."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY (%s)", (list(canonical.ROLES),))
        return {name for (name,) in found.fetchall()}


def test_roles_used_elsewhere_stay(own_postgres: PostgresServer) -> None:
    """Down in one database leaves the roles to another and to logins that are members; the last takes them away."""
    with own_postgres.connect() as admin:
        admin.execute("CREATE DATABASE one")
        admin.execute("CREATE DATABASE two")
    one, two = own_postgres.dsn("one"), own_postgres.dsn("two")
    migrate.up(one)
    migrate.up(two)
    migrate.down(one, 0)
    assert roles(one) == set(canonical.ROLES)
    assert value(two, "SELECT has_table_privilege('ops_exporter', 'ops.ledger_totals', 'SELECT')") is True
    with own_postgres.connect() as admin:
        admin.execute("CREATE ROLE anna LOGIN IN ROLE ops_super")
    migrate.down(two, 0)
    assert roles(two) == set(canonical.ROLES), "anna keeps what she was given"
    migrate.up(two)
    with own_postgres.connect() as admin:
        admin.execute("DROP ROLE anna")
    migrate.down(two, 0)
    assert roles(two) == set()
    migrate.up(one)
    assert roles(one) == set(canonical.ROLES)


def test_without_rights_says_what_is_needed(app_database: str) -> None:
    """A role that may not create a schema is told who may."""
    name = f"weak_{conninfo_to_dict(app_database)['dbname']}"
    execute(app_database, f"CREATE ROLE {name} LOGIN")
    try:
        with pytest.raises(MigrationError, match=r"permission denied for database.*migrate as the database's owner"):
            migrate.up(make_conninfo(app_database, user=name))
    finally:
        execute(app_database, f"DROP ROLE {name}")


def test_plain_owner(database: str) -> None:
    """Where the roles exist, a database's owner without any other right migrates, checks and goes back to zero."""
    name = f"owner_{conninfo_to_dict(database)['dbname']}"
    execute(database, f"CREATE ROLE {name} LOGIN")
    execute(database, f"CREATE DATABASE {name} OWNER {name}")
    try:
        dsn = make_conninfo(database, user=name, dbname=name)
        app_schema.create(dsn)
        migrate.up(dsn)
        assert contract.apply(dsn).findings == ()
        assert check.check(dsn) == []
        contract.suspend(dsn)
        assert versions(migrate.down(dsn, 0)) == ALL[::-1]
    finally:
        execute(database, f"DROP DATABASE {name} WITH (FORCE)")
        execute(database, f"DROP ROLE {name}")


def test_away_says_so(tmp_path: Any) -> None:
    """No server: one sentence, no traceback."""
    with pytest.raises(SourceError, match="check the DSN"):
        migrate.status(f"postgresql://postgres@/postgres?host={tmp_path}")


def run(dsn: str, *arguments: str) -> Result:
    """Run `opsctl migrate`."""
    return CliRunner().invoke(command, arguments, env={"DATABASE_URL": dsn, "OPS_DATABASE_URL": ""})


def test_command_line(app_database: str) -> None:
    """Up, status and down as a person and as a script see them."""
    assert "applied 0001 exporters" in run(app_database, "up").output
    assert run(app_database, "up").output == "nothing to apply\n"
    shown = run(app_database, "status")
    assert shown.exit_code == 0
    assert "exporters" in shown.output
    listed = json.loads(run(app_database, "status", "--json").output)
    assert [step["state"] for step in listed] == ["applied"] * len(ALL)
    assert json.loads(run(app_database, "down", "--json").output)[0]["version"] == ALL[-1]
    assert "taken back 0001 exporters" in run(app_database, "down", "--to", "0").output


def test_command_line_shows_contradiction(app_database: str) -> None:
    """Status exits 1 when an applied migration is not the file we have."""
    migrate.up(app_database)
    execute(app_database, "UPDATE ops.schema_migrations SET checksum = 'other' WHERE version = 1")
    shown = run(app_database, "status")
    assert shown.exit_code == 1
    assert "edited" in shown.output


def test_ops_database_url_wins(app_database: str) -> None:
    """Our schema goes where OPS_DATABASE_URL says."""
    environment = {"DATABASE_URL": "postgresql://nobody@/nowhere?host=/nonexistent", "OPS_DATABASE_URL": app_database}
    assert CliRunner().invoke(command, ["up"], env=environment).exit_code == 0
    assert states(app_database)[0] == State.APPLIED
