"""One connection for changing a schema: never in the application's way, and its errors say what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta

import psycopg
from psycopg import errors

from opslib.errors import SourceError
from opslib.postgres import conninfo, describe, only_reading

LOCK_TIMEOUT = timedelta(seconds=2)
"""Longest wait for a lock. Whoever wants the same lock after us waits behind us, so this is also the longest we can
hold up anybody."""

STATEMENT_TIMEOUT = timedelta(minutes=5)

TURN_TIMEOUT = timedelta(seconds=60)
"""Longest wait for another `opsctl` that is changing the same database."""

TURN = "hashtextextended('ops.schema', 0)"
"""The advisory lock under which migrations and the contract change a database."""


@contextlib.contextmanager
def connect(dsn: str, application_name: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection that resolves no name by accident.

    Raises:
        SourceError: Unreachable, lost on the way, or a statement failed that nobody expected to.
    """
    try:
        connection = psycopg.connect(
            conninfo(dsn, application_name=application_name), autocommit=True, prepare_threshold=None
        )
    except psycopg.OperationalError as exc:
        raise SourceError(f"Postgres: {describe(exc)}; check the DSN and that the server is up") from exc
    try:
        with connection:
            if only_reading():
                connection.execute("SET default_transaction_read_only = on")
            yield connection
    except errors.InsufficientPrivilege as exc:
        raise SourceError(f"Postgres: {describe(exc)}; connect as the owner of the database") from exc
    except psycopg.Error as exc:
        raise SourceError(f"Postgres: {describe(exc)}") from exc


@contextlib.contextmanager
def transaction(connection: psycopg.Connection) -> Iterator[psycopg.Cursor]:
    """A transaction under our timeouts, in which only qualified names are found."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL search_path = pg_catalog, pg_temp")
        limit(cursor, lock=LOCK_TIMEOUT)
        yield cursor


@contextlib.contextmanager
def turn(connection: psycopg.Connection) -> Iterator[psycopg.Cursor]:
    """A transaction that no other `opsctl` runs on this database at the same time.

    The lock belongs to the transaction, not to the session: that holds behind a connection pooler too.

    Raises:
        SourceError: The other one did not finish within a minute.
    """
    with transaction(connection) as cursor:
        limit(cursor, lock=TURN_TIMEOUT)
        try:
            cursor.execute(f"SELECT pg_advisory_xact_lock({TURN})")
        except errors.LockNotAvailable as exc:
            raise SourceError(
                "another opsctl has been changing this database for over a minute: see pg_stat_activity, then try again"
            ) from exc
        limit(cursor, lock=LOCK_TIMEOUT)
        yield cursor


def limit(cursor: psycopg.Cursor, *, lock: timedelta) -> None:
    """Bound the waits of the running transaction."""
    cursor.execute(
        "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)",
        (f"{lock / timedelta(milliseconds=1):.0f}ms", f"{STATEMENT_TIMEOUT / timedelta(milliseconds=1):.0f}ms"),
    )
