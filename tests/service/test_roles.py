"""What each role may do is tried, as a login that is a member of it, on everything the catalog lists.

A table, view or function added later is covered by itself: whatever is not declared must be refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors
from psycopg.conninfo import make_conninfo

from opslib.contract import grants
from opslib.contract.canonical import OPS_VIEWS, VIEWS

Login = Callable[[str], psycopg.Connection]


class Relation(NamedTuple):
    """A table or view with one column of its own."""

    schema: str
    name: str
    column: str

    def __str__(self) -> str:
        """Quoted for SQL."""
        return f'"{self.schema}"."{self.name}"'


@pytest.fixture
def owner(database: str) -> Iterator[psycopg.Connection]:
    """The owner's connection; an order is there to be read."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO orders (email) VALUES ('anna@mail.example')")
        connection.execute("INSERT INTO users (email) VALUES ('anna@mail.example')")
        yield connection


@pytest.fixture
def login(database: str, owner: psycopg.Connection) -> Iterator[Login]:
    """Logs in as a new user who is a member of a role, and of nothing else."""
    names: list[str] = []
    with contextlib.ExitStack() as stack:

        def connect(role: str) -> psycopg.Connection:
            name = f"{role}_{uuid4().hex[:8]}"
            owner.execute(f"CREATE ROLE {name} LOGIN IN ROLE {role}")
            names.append(name)
            return stack.enter_context(psycopg.connect(make_conninfo(database, user=name), autocommit=True))

        yield connect
    for name in names:
        owner.execute(f"DROP ROLE {name}")


@pytest.fixture
def relations(owner: psycopg.Connection) -> list[Relation]:
    """Every table and view that is not PostgreSQL's own."""
    found = owner.execute(
        """SELECT n.nspname, c.relname, a.attname
           FROM pg_class c
           JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1
           WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"""
    ).fetchall()
    assert {schema for schema, _, _ in found} == {"public", "ops", "ops_view"}
    return [Relation(*row) for row in found]


def allowed(connection: psycopg.Connection, statement: str) -> bool:
    """Whether a statement is permitted; what it does is undone.

    An error other than "permission denied" is a permission: the check comes first.
    """
    try:
        with connection.transaction():
            connection.execute(statement)
            raise psycopg.Rollback
    except errors.InsufficientPrivilege:
        return False
    except psycopg.Error:
        return True
    return True


def writes(relation: Relation) -> list[str]:
    """Every way to change a table or view."""
    column = f'"{relation.column}"'
    return [
        # Identity columns are refused before rights are looked at, unless one says it like this.
        f"INSERT INTO {relation} OVERRIDING SYSTEM VALUE SELECT * FROM {relation} WHERE false",
        f"INSERT INTO {relation} ({column}) OVERRIDING SYSTEM VALUE VALUES (NULL)",
        f"UPDATE {relation} SET {column} = DEFAULT",
        f"DELETE FROM {relation}",
        f"TRUNCATE {relation}",
        f"ALTER {'VIEW' if relation.schema == 'ops_view' else 'TABLE'} {relation} RENAME TO renamed",
        f"DROP {'VIEW' if relation.schema == 'ops_view' else 'TABLE'} {relation}",
    ]


@pytest.mark.parametrize("role", ["ops_grafana", "ops_exporter", "ops_jobs", "ops_staff", "ops_super", "ops_backup"])
def test_nobody_writes_directly(login: Login, owner: psycopg.Connection, relations: list[Relation], role: str) -> None:
    """No role may write any table or view: those that change something go through functions."""
    connection = login(role)
    for relation in relations:
        for statement in writes(relation):
            if (
                relation.schema == "ops_view"
            ):  # one of several tables or with a computed column says no before rights do
                with pytest.raises(psycopg.Error):
                    connection.execute(statement)
            else:
                assert not allowed(connection, statement), statement
    held = owner.execute(
        """SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE c.relkind IN ('r', 'v') AND n.nspname IN ('ops', 'ops_view', 'public')
             AND has_table_privilege(%s, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')""",
        (role,),
    )
    assert held.fetchall() == []


@pytest.mark.parametrize("role", sorted(grants.FUNCTIONS))
def test_reads_what_is_declared(login: Login, relations: list[Relation], role: str) -> None:
    """A role reads its views, most of them tables of ours too, and nothing else at all."""
    connection = login(role)
    readable = {
        (relation.schema, relation.name) for relation in relations if allowed(connection, f"SELECT * FROM {relation}")
    }
    expected = {("ops_view", view) for view in (*VIEWS, *OPS_VIEWS)}
    expected |= {("ops", table) for table in grants.OPS_READS.get(role, ())}
    assert readable == expected


@pytest.mark.parametrize("role", ["ops_grafana", "ops_exporter"])
def test_no_single_column_of_a_table(login: Login, relations: list[Relation], role: str) -> None:
    """Nor does a role read one column, or just count, a table of the application."""
    connection = login(role)
    for relation in relations:
        if relation.schema == "public":
            assert not allowed(connection, f'SELECT "{relation.column}" FROM {relation}')
            assert not allowed(connection, f"SELECT count(*) FROM {relation}")
            assert not allowed(connection, f"COPY {relation} TO STDOUT")


@pytest.mark.parametrize("role", sorted(grants.FUNCTIONS))
def test_calls_what_is_declared(login: Login, owner: psycopg.Connection, role: str) -> None:
    """Each function of ours is callable by those it is granted to and by nobody else."""
    functions = owner.execute(
        """SELECT n.nspname || '.' || p.proname, p.pronargs
           FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
           WHERE n.nspname IN ('ops', 'ops_view', 'ops_app')"""
    ).fetchall()
    assert len(functions) >= 11
    connection = login(role)
    callable_ = {
        name for name, count in functions if allowed(connection, f"SELECT {name}({', '.join(['NULL'] * count)})")
    }
    assert callable_ == grants.FUNCTIONS[role]


def test_exporter_counts_through_its_functions(login: Login, owner: psycopg.Connection) -> None:
    """What an exporter may not write it may count, and only upwards."""
    connection = login("ops_exporter")
    connection.execute("SELECT ops.ledger_start('webhook', '2026-01-01 00:00+00')")
    advance = "SELECT ops.ledger_advance('webhook', '{a}', '{kinguin}', '{ok}', '{2026-01-02 00:00+00}', '{0}')"
    assert connection.execute(advance).fetchone() == (1,)
    assert connection.execute("SELECT ops.checkpoint_claim('queues', 'me')").fetchone() == (1,)
    assert owner.execute("SELECT events FROM ops.ledger_totals").fetchone() == (1,)
    assert connection.execute("SELECT status FROM ops_view.orders").fetchone() == ("created",)


def test_exporter_cannot_search_people(login: Login) -> None:
    """Search by e-mail is for people."""
    assert not allowed(login("ops_exporter"), "SELECT ops_view.order_ids_by_email('anna@mail.example')")


@pytest.mark.parametrize("role", ["ops_grafana", "ops_exporter"])
def test_no_way_round(login: Login, role: str) -> None:
    """No object of one's own, no other role, no file, no program, no other session."""
    connection = login(role)
    for statement in (
        "CREATE TABLE public.mine (id int)",
        "CREATE TABLE ops_view.mine (id int)",
        "CREATE FUNCTION ops_view.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "SET ROLE ops_staff",
        "SET ROLE ops_super",
        "SET ROLE postgres",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY ops_view.orders TO PROGRAM 'cat'",
        "COPY ops_view.orders TO '/tmp/orders'",
        "SELECT lo_import('/etc/passwd')",
        "CREATE VIEW ops_view.peek AS SELECT 1",
    ):
        assert not allowed(connection, statement), statement


def test_grafana_sees_no_email_by_any_query(login: Login, owner: psycopg.Connection) -> None:
    """Statistics and casts of a view give away nothing the view masks; search answers ids."""
    owner.execute("INSERT INTO orders (email) SELECT 'anna@mail.example' FROM generate_series(1, 9)")
    owner.execute("ANALYZE orders")
    statistics = "SELECT most_common_vals::text FROM pg_stats WHERE schemaname = 'public'"
    assert "anna@" in str(owner.execute(statistics).fetchall()), "or the question below proves nothing"
    connection = login("ops_grafana")
    for statement in (
        "SELECT orders::text FROM ops_view.orders",
        "SELECT to_jsonb(u)::text FROM ops_view.users u",
        statistics,
    ):
        assert "anna@" not in str(connection.execute(statement).fetchall()), statement
    assert len(connection.execute("SELECT ops_view.order_ids_by_email('anna@mail.example')").fetchall()) == 10


def test_backup_reads_everything(login: Login, relations: list[Relation]) -> None:
    """A backup reads every table and view, those of tomorrow too."""
    connection = login("ops_backup")
    assert [str(relation) for relation in relations if not allowed(connection, f"SELECT * FROM {relation}")] == []


def test_people_read_the_views(login: Login) -> None:
    """Staff and super read views and our own tables; of the application's tables nothing."""
    for role in ("ops_staff", "ops_super"):
        connection = login(role)
        for view in VIEWS:
            assert allowed(connection, f"SELECT * FROM ops_view.{view}")
        assert allowed(connection, "SELECT * FROM ops.balances")
        assert allowed(connection, "SELECT ops_view.user_ids_by_email('anna@mail.example')")
        assert not allowed(connection, "SELECT * FROM public.orders")
        assert not allowed(connection, "SELECT ops.checkpoint_claim('queues', 'me')")


def test_new_table_is_closed(login: Login, owner: psycopg.Connection) -> None:
    """A table added to any schema is nobody's until its own migration says otherwise."""
    owner.execute("CREATE TABLE ops.tomorrow (id int); CREATE TABLE public.tomorrow (id int)")
    for role in ("ops_grafana", "ops_exporter", "ops_staff"):
        connection = login(role)
        for schema in ("ops", "public"):
            assert not allowed(connection, f"SELECT * FROM {schema}.tomorrow")
