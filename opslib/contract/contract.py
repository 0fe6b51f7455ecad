"""Create and remove the canonical views in the application's database, never in the application's way.

A view makes the application's own DROP COLUMN and ALTER COLUMN TYPE fail, so a deployment removes the views first
(`suspend`) and makes them again afterwards (`apply`). What no longer fits is named; the rest comes back all the same,
and the next `apply` heals what an adapted adapter fits again.

Neither may cost the application a deadlock. We hold locks on views while we wait for tables; a migration may hold the
table and want the view. Postgres looks for such a circle after `deadlock_timeout` (1 s) and kills one of the two. So an
attempt of ours, all its waits together, ends before that: we let go, pause, and try again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import psycopg
from psycopg import errors
from psycopg.rows import tuple_row

from opslib.contract import adapter as adapters
from opslib.contract import canonical, migrate
from opslib.contract.adapter import Adapter, Block
from opslib.contract.canonical import SCHEMA, WRITE_SCHEMA
from opslib.contract.finding import Finding
from opslib.contract.session import connect, limit, turn
from opslib.errors import ContractError, SourceError
from opslib.postgres import describe

T = TypeVar("T")

SCHEMAS = (SCHEMA, WRITE_SCHEMA)
"""Where our objects in the application's database live."""

ATTEMPT_SECONDS = 0.8  # below the application's deadlock_timeout, see above
PAUSE_SECONDS = 0.2
ATTEMPTS = 30  # half a minute: longer than a dashboard's query, shorter than a deployment's patience


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `apply` or `suspend` did.

    Attributes:
        views: The views made, or removed.
        findings: What does not fit; empty when all is well.
        notes: What else to know; nothing here is a failure.
    """

    views: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


def apply(dsn: str, ops_dsn: str | None = None, *, adapter: Adapter | None = None) -> Outcome:
    """Make every view anew, in one transaction: readers wait some milliseconds and never find one missing.

    Args:
        dsn: The application's database, as a role that owns it or may read its tables.
        ops_dsn: Where schema `ops` lives; None: in the same database.
        adapter: What to apply; BitLoot's by default.

    Raises:
        ContractError: Nothing could be done at all; everything is as it was.
        SourceError: The database is away.
    """
    adapter = adapter or adapters.load()
    with connect(dsn, "opsctl contract") as connection:
        _ensure_roles(connection)
        findings = _patiently(lambda: _replace(connection, adapter))
    failed = {finding.where for finding in findings}
    made = tuple(block.name for block in adapter.of("view") if str(block) not in failed)
    return Outcome(made, tuple(findings), _remember(ops_dsn or dsn, adapter, suspended=False))


def suspend(dsn: str, ops_dsn: str | None = None, *, adapter: Adapter | None = None) -> Outcome:
    """Remove every object of ours from the application's database; calling it twice is the same as once.

    Schema `ops` stays: nothing in it touches the application's tables.

    Raises:
        ContractError: A view is in use for longer than we wait, or somebody built on it; nothing was removed.
        SourceError: The database is away.
    """
    adapter = adapter or adapters.load()
    with connect(dsn, "opsctl contract") as connection:
        removed = _patiently(lambda: _remove(connection))
    return Outcome(removed, notes=_remember(ops_dsn or dsn, adapter, suspended=True))


def create(
    cursor: psycopg.Cursor, blocks: Iterator[Block], file: str, until: float, *, scratch: str | None = None
) -> Iterator[Finding]:
    """Run each block in a savepoint of its own, and yield what does not fit.

    Args:
        cursor: In a transaction.
        blocks: Which.
        file: The adapter's file, for the messages.
        until: When to give up waiting for locks, on the monotonic clock.
        scratch: A schema for every object; None: each goes to the one it is for. Both exist.

    Raises:
        psycopg.errors.LockNotAvailable: Gave up.
    """
    connection = cursor.connection
    for block in blocks:
        schema = scratch or (WRITE_SCHEMA if block.kind == "write" else SCHEMA)
        _limit(cursor, until)
        cursor.execute("SELECT set_config('search_path', %s, true)", (f'"{schema}", pg_temp',))
        try:
            with connection.transaction():
                _run(cursor, block, schema)
        except (errors.LockNotAvailable, errors.DeadlockDetected):
            raise
        except errors.InsufficientPrivilege as exc:
            yield Finding(str(block), describe(exc), "run this as the owner of the application's tables")
        except errors.UndefinedObject as exc:
            yield Finding(str(block), describe(exc), "run `opsctl migrate up`, which makes the roles, then this again")
        except (psycopg.Error, ContractError) as exc:
            problem = describe(exc) if isinstance(exc, psycopg.Error) else str(exc)
            yield Finding(str(block), problem, f"adapt it in {file}, then run `opsctl contract apply`")


def _run(cursor: psycopg.Cursor, block: Block, schema: str) -> None:
    cursor.execute(block.sql.encode())
    if block.kind == "view" and (wrong := canonical.misfits(block.name, _columns(cursor, schema, block.name))):
        raise ContractError(", ".join(wrong))


def _replace(connection: psycopg.Connection, adapter: Adapter) -> list[Finding]:
    with turn(connection) as cursor:
        until = time.monotonic() + ATTEMPT_SECONDS
        _drop(cursor, until)
        for schema in SCHEMAS:
            cursor.execute("SELECT to_regnamespace(%s) IS NULL", (schema,))
            if cursor.fetchone() == (True,):
                cursor.execute(f"CREATE SCHEMA {schema}")
        return list(create(cursor, adapter.of("function", "view", "write", "grants"), adapter.file, until))


def _remove(connection: psycopg.Connection) -> tuple[str, ...]:
    with turn(connection) as cursor:
        removed = _drop(cursor, time.monotonic() + ATTEMPT_SECONDS)
        # A schema into which somebody else put something is left to them.
        for schema in SCHEMAS:
            with contextlib.suppress(errors.DependentObjectsStillExist), connection.transaction():
                cursor.execute(f"DROP SCHEMA IF EXISTS {schema}")
        return removed


def _drop(cursor: psycopg.Cursor, until: float) -> tuple[str, ...]:
    _limit(cursor, until)
    with cursor.connection.cursor(row_factory=tuple_row) as reader:
        reader.execute(
            "SELECT c.relname, c.oid::regclass::text FROM pg_class c "
            "WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind = 'v' AND c.relname <> ALL (%s) ORDER BY 1",
            (SCHEMA, list(canonical.OPS_VIEWS)),
        )
        views = reader.fetchall()
        reader.execute(
            "SELECT p.oid::regprocedure::text FROM pg_proc p "
            "WHERE p.pronamespace IN (to_regnamespace(%s), to_regnamespace(%s))",
            SCHEMAS,
        )
        functions = reader.fetchall()
    try:
        if views:
            cursor.execute(f"DROP VIEW {', '.join(name for _, name in views)}")
        if functions:
            cursor.execute(f"DROP FUNCTION {', '.join(name for (name,) in functions)}")
    except errors.DependentObjectsStillExist as exc:
        detail = (exc.diag.message_detail or describe(exc)).replace("\n", ", ")
        raise ContractError(
            f"something was built on our views: {detail}; drop it first, it would block deployments too"
        ) from exc
    return tuple(name for name, _ in views)


def _columns(cursor: psycopg.Cursor, schema: str, view: str) -> dict[str, str]:
    with cursor.connection.cursor(row_factory=tuple_row) as reader:
        reader.execute(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute "
            "WHERE attrelid = to_regclass(format('%%I.%%I', %s::text, %s::text)) AND attnum > 0 AND NOT attisdropped",
            (schema, view),
        )
        return dict(reader.fetchall())


def _ensure_roles(connection: psycopg.Connection) -> None:
    """Make our roles on the application's server, which need not be the one our migrations ran on."""
    with turn(connection) as cursor:
        cursor.execute(
            "SELECT bool_and(to_regrole(name) IS NOT NULL) FROM unnest(%s::text[]) AS name", (list(canonical.ROLES),)
        )
        if cursor.fetchone() == (True,):
            return
        try:
            cursor.execute(next(step.up for step in migrate.load() if step.name == "roles").encode())
        except errors.InsufficientPrivilege as exc:
            raise ContractError(
                f"our database roles are missing here and {describe(exc)}; "
                "run this once as a role that may create roles (or a superuser)"
            ) from exc


def _patiently(attempt: Callable[[], T]) -> T:
    for _ in range(ATTEMPTS):
        try:
            return attempt()
        except (errors.LockNotAvailable, errors.DeadlockDetected) as exc:
            last = exc
            time.sleep(PAUSE_SECONDS)
    raise ContractError(
        "a lock on our views or on the application's tables was never free; see who holds it "
        "(SELECT pid, application_name, state, query FROM pg_stat_activity), then run this again; nothing was changed"
    ) from last


def _limit(cursor: psycopg.Cursor, until: float) -> None:
    # Never 0, which would mean for ever.
    limit(cursor, lock=timedelta(seconds=max(until - time.monotonic(), 0.001)))


def _remember(dsn: str, adapter: Adapter, *, suspended: bool) -> tuple[str, ...]:
    """Record the state in the ops database. The views are what counts: a record that fails is only noted."""
    try:
        with connect(dsn, "opsctl contract") as connection:
            connection.execute(
                """
                INSERT INTO ops.contract_state AS s (adapter, checksum, applied_at, suspended_at)
                VALUES (%(name)s, %(checksum)s, CASE WHEN NOT %(off)s THEN now() END, CASE WHEN %(off)s THEN now() END)
                ON CONFLICT (singleton) DO UPDATE SET
                    adapter = CASE WHEN %(off)s THEN s.adapter ELSE excluded.adapter END,
                    checksum = CASE WHEN %(off)s THEN s.checksum ELSE excluded.checksum END,
                    applied_at = coalesce(excluded.applied_at, s.applied_at),
                    suspended_at = CASE WHEN %(off)s THEN coalesce(s.suspended_at, now()) END
                """,
                {"name": adapter.name, "checksum": adapter.checksum, "off": suspended},
            )
    except SourceError as exc:
        if isinstance(exc.__cause__, (errors.UndefinedTable, errors.InvalidSchemaName)):
            return ("not recorded: schema ops is not migrated; run `opsctl migrate up`, then this again",)
        return (f"not recorded in the ops database: {exc}",)
    return ()
