"""One Postgres connection for a job or a command: autocommit, bounded, with errors that say what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import errors
from psycopg.rows import dict_row

from opslib.errors import SourceError
from opslib.postgres import conninfo, describe, explain, only_reading

Connection = psycopg.Connection[dict[str, Any]]

STATEMENT_SECONDS = 30


@contextlib.contextmanager
def session(dsn: str, name: str, *, seconds: float = STATEMENT_SECONDS) -> Iterator[Connection]:
    """A connection while the block runs; rows are dicts.

    Args:
        dsn: Where.
        name: Who, in pg_stat_activity.
        seconds: Any one statement may take.

    Raises:
        SourceError: Unreachable, lost on the way, or the server refused a statement.
    """
    try:
        connection = psycopg.connect(
            conninfo(dsn, application_name=f"opsctl {name}"), autocommit=True, row_factory=dict_row
        )
    except psycopg.OperationalError as exc:
        raise SourceError(f"Postgres: {describe(exc)}; check the DSN and that the server is up") from exc
    try:
        with connection:
            connection.execute(
                "SELECT set_config('statement_timeout', %s, false), "
                "set_config('default_transaction_read_only', %s, false)",
                (f"{seconds * 1000:.0f}ms", "on" if only_reading() else "off"),
            )
            yield connection
    except errors.InsufficientPrivilege as exc:
        raise SourceError(
            f"Postgres: {describe(exc)}; jobs log in as members of ops_jobs, people of ops_staff (docs/contract.md)"
        ) from exc
    except psycopg.Error as exc:
        raise SourceError(f"Postgres: {explain(exc)}") from exc
