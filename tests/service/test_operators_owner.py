"""Operators where the schema's owner is no superuser, as on a hosted Postgres."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from demo.postgres import PostgresServer
from opslib.contract import migrate

VERIFIER = "SCRAM-SHA-256$4096:AAAA$BBBB:CCCC"


def test_an_owner_who_may_create_roles_is_enough(own_postgres: PostgresServer) -> None:
    """Supers add and disable through the owner's functions; rights go at once though sessions are not ours to end."""
    with own_postgres.connect() as admin:
        admin.execute("CREATE ROLE keeper LOGIN CREATEROLE")
        admin.execute("GRANT pg_read_all_data TO keeper WITH ADMIN OPTION")
        admin.execute("CREATE DATABASE shop OWNER keeper")
    migrate.up(own_postgres.dsn("shop", "keeper"))
    with own_postgres.connect("shop", "keeper") as keeper:
        assert keeper.execute("SELECT ops.operator_role()").fetchone() == ("owner",)
        keeper.execute("SELECT ops.operator_add('anna', 'super', %s)", (VERIFIER,))
    with own_postgres.connect("shop", "anna") as anna:
        anna.execute("SELECT ops.operator_add('ben', 'staff', %s)", (VERIFIER,))
        with own_postgres.connect("shop", "ben") as ben:
            with pytest.raises(errors.InsufficientPrivilege):
                ben.execute("SELECT ops.operator_disable('anna')")
            assert ben.execute("SELECT ops.operator_role()").fetchone() == ("staff",)
            anna.execute("SELECT ops.operator_disable('ben')")
            with pytest.raises(psycopg.Error):
                ben.execute("SELECT ops.operator_role()")
        for name in ("keeper", "postgres"):
            with pytest.raises(errors.NoDataFound):
                anna.execute("SELECT ops.operator_disable(%s)", (name,))


def test_a_login_made_anew_by_others_is_not_taken_over(own_postgres: PostgresServer) -> None:
    """Somebody who once was an operator of that name is no way to another's password."""
    migrate.up(own_postgres.dsn())
    with own_postgres.connect() as admin:
        admin.execute("SELECT ops.operator_add('deploy', 'staff', %s)", (VERIFIER,))
        admin.execute("SELECT ops.operator_disable('deploy')")
        admin.execute("DROP ROLE deploy")
        admin.execute("CREATE ROLE deploy LOGIN SUPERUSER")
        with pytest.raises(errors.DuplicateObject, match="exists already"):
            admin.execute("SELECT ops.operator_add('deploy', 'super', %s)", (VERIFIER,))
