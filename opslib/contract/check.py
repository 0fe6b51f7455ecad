"""Prove the contract against a live database: is all of it there, would it be again, and does nothing escape it?

Every part runs in a transaction of its own that changes nothing. A part that cannot run is a finding, never green.

Nor may a check cost the application a deadlock (see `contract`): waits are short, and every statement that reads the
application's tables lets go of them at once, by a savepoint that is rolled back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

import psycopg
from psycopg import errors
from psycopg.rows import dict_row

from opslib.areas import queries
from opslib.areas.queries import NamedQuery
from opslib.contract import adapter as adapters
from opslib.contract import canonical, grants, indexes, tune
from opslib.contract.adapter import Adapter
from opslib.contract.contract import ATTEMPT_SECONDS, create
from opslib.contract.finding import Finding
from opslib.contract.session import connect, limit, transaction
from opslib.errors import SourceError
from opslib.postgres import describe


@dataclass(frozen=True, slots=True)
class Check:
    """What is checked, and against what.

    Attributes:
        adapter: The adapter that should stand in the database.
        named: The named queries to plan; ours by default.
    """

    adapter: Adapter
    named: Mapping[str, NamedQuery]


LOCK_TIMEOUT = timedelta(milliseconds=250)
"""A statement reads three tables at most, so it holds one of them for less than `deadlock_timeout` (1 s)."""

Part = Callable[[psycopg.Cursor, Check], Iterable[Finding]]


def check(
    dsn: str,
    ops_dsn: str | None = None,
    *,
    adapter: Adapter | None = None,
    named: Mapping[str, NamedQuery] = queries.NAMED,
) -> list[Finding]:
    """Everything that is wrong, in the order it is best mended; empty when all is well.

    Args:
        dsn: The application's database, as the role that applied the contract.
        ops_dsn: Where schema `ops` lives; None: in the same database.
        adapter: BitLoot's by default.
        named: Queries that must have sound plans.

    Raises:
        SourceError: The application's database is away.
    """
    what = Check(adapter or adapters.load(), named)
    found: list[Finding] = []
    with connect(dsn, "opsctl contract") as connection:
        for name, part in PARTS.items():
            found += _run(connection, name, part, what)
    try:
        with connect(ops_dsn or dsn, "opsctl contract") as connection:
            found += _run(connection, "state", _state, what)
            if ops_dsn not in (None, dsn):
                found += _run(connection, "grants of schema ops", _grants, what)
    except SourceError as exc:
        found.append(Finding("ops database", f"could not be checked: {exc}", "see OPS_DATABASE_URL"))
    return found


def _run(connection: psycopg.Connection, name: str, part: Part, what: Check) -> list[Finding]:
    found: list[Finding] = []
    try:
        with transaction(connection) as cursor:
            limit(cursor, lock=LOCK_TIMEOUT)
            found += part(cursor, what)
            raise psycopg.Rollback
    except errors.LockNotAvailable:
        found.append(
            Finding(name, "could not be checked: a table stayed locked", "run this again when the migration is over")
        )
    except psycopg.Error as exc:
        found.append(Finding(name, f"could not be checked: {describe(exc)}", _mend(exc)))
    return found


def _mend(exc: psycopg.Error) -> str:
    if isinstance(exc, errors.UndefinedObject | errors.UndefinedTable | errors.InvalidSchemaName):
        return "run `opsctl migrate up`, then this again"
    return "mend that first, then run this again"


def _live(cursor: psycopg.Cursor, what: Check) -> Iterator[Finding]:
    """Every canonical view, column and type is there."""
    del what
    with cursor.connection.cursor(row_factory=dict_row) as reader:
        rows = reader.execute(queries.NAMED["contract_columns"].sql).fetchall()
    if not rows:
        yield Finding("views", "none is there: never applied, or suspended", "run `opsctl contract apply`")
        return
    for problem in canonical.problems(rows):
        yield Finding("views", problem, "run `opsctl contract apply`, which says why")


def _fits(cursor: psycopg.Cursor, what: Check) -> Iterable[Finding]:
    """The adapter could be applied again.

    A view follows a renamed column in silence and goes on working; only making it anew shows that it no longer fits.
    """
    scratch = f"ops_view_check_{cursor.connection.info.backend_pid}"
    cursor.execute(f"CREATE SCHEMA {scratch}")
    blocks = what.adapter.of("function", "view", "write")
    return list(create(cursor, blocks, what.adapter.file, time.monotonic() + ATTEMPT_SECONDS, scratch=scratch))


def _writes(cursor: psycopg.Cursor, what: Check) -> Iterator[Finding]:
    """Every write function is there, runs as its owner, and resolves no name by its caller's search_path."""
    del what
    rows = cursor.execute(
        """
        SELECT p.proname, oidvectortypes(p.proargtypes), p.prosecdef, p.proconfig::text LIKE '%search_path=%'
        FROM pg_proc p WHERE p.pronamespace = to_regnamespace('ops_app')
        """
    ).fetchall()
    live = {f"{name}({arguments})": definer and fixed for name, arguments, definer, fixed in rows}
    for function in (f"{name}({arguments})" for name, arguments in canonical.WRITES.items()):
        if function not in live:
            yield Finding("functions", f"ops_app.{function} is missing", "run `opsctl contract apply`, which says why")
        elif not live[function]:
            yield Finding(
                "functions",
                f"ops_app.{function} is not SECURITY DEFINER with a search_path of its own",
                "somebody changed it: run `opsctl contract apply`",
            )


def _values(cursor: psycopg.Cursor, what: Check) -> Iterator[Finding]:
    """Every status and type in the data is one we know."""
    for block in what.adapter.of("values"):
        try:
            live = {str(value) for (value,) in _ask(cursor, block.sql)}
        except errors.LockNotAvailable:
            raise
        except psycopg.Error as exc:
            yield Finding(
                block.name,
                f"could not be checked: {describe(exc)}",
                f"mend that, or adapt the query in {what.adapter.file}",
            )
            continue
        for value in sorted(live - block.known):
            yield Finding(
                block.name,
                f"the application has a new value, {value[:60]!r}",
                f"see what it means for every query that names a status, then add it in {what.adapter.file}",
            )


def _plans(cursor: psycopg.Cursor, what: Check) -> Iterator[Finding]:
    """No query of ours reads a big table from end to end."""
    ours = [query for query in what.named.values() if query.database == "app"]
    if not ours:
        yield Finding("plans", "there is no named query to plan", "see opslib/areas/*.sql")
    cursor.execute("SET LOCAL enable_seqscan = off")  # on a small table a sequential scan would be right
    unplanned: dict[str, list[str]] = {}  # by reason: one missing view stops many queries
    for query in ours:
        try:
            ((plan,),) = _ask(cursor, f"EXPLAIN (FORMAT JSON) {query.sql}", queries.SAMPLE)
        except errors.LockNotAvailable:
            raise
        except errors.UndefinedTable:
            unplanned.setdefault("its view is missing", []).append(query.name)
            continue
        except psycopg.Error as exc:
            unplanned.setdefault(describe(exc), []).append(query.name)
            continue
        for table in sorted(scanned(plan) & what.adapter.big):
            yield Finding(
                f"query {query.name}",
                f"reads all of {table}",
                "filter on the raw column that leads one of the application's indexes, converting the parameter",
            )
    for reason, names in unplanned.items():
        where = f"quer{'y' if len(names) == 1 else 'ies'} {', '.join(names)}"
        yield Finding(
            where, f"cannot be planned: {reason}", "run `opsctl contract apply`; if that helps not, mend the query"
        )


def _indexes(cursor: psycopg.Cursor, what: Check) -> Iterator[Finding]:
    """Every index our queries rely on is there and valid."""
    wanted = [index for index in what.adapter.indexes if not index.optional]
    with cursor.connection.cursor(row_factory=dict_row) as reader:
        parameters = {"tables": indexes.tables(wanted)}
        rows = reader.execute(queries.NAMED["contract_indexes"].sql, parameters).fetchall()
    yield from map(tune.finding, indexes.missing(wanted, rows))


def _ask(cursor: psycopg.Cursor, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    with cursor.connection.transaction():
        rows += cursor.execute(sql.encode(), parameters).fetchall()
        raise psycopg.Rollback
    return rows


def scanned(plan: Any) -> set[str]:
    """The tables read from end to end anywhere in a plan, as EXPLAIN (FORMAT JSON) gives it."""
    if isinstance(plan, list):
        return set().union(*map(scanned, plan))
    if not isinstance(plan, dict):
        return set()
    here = {plan["Relation Name"]} if plan.get("Node Type") == "Seq Scan" else set()
    return here.union(*(scanned(part) for part in plan.values()))


def _grants(cursor: psycopg.Cursor, what: Check) -> Iterable[Finding]:
    """Roles may do what is declared, and nothing else."""
    del what
    return list(grants.differences(cursor.connection))


def _state(cursor: psycopg.Cursor, what: Check) -> Iterator[Finding]:
    """The adapter that was applied is the one we have."""
    row = cursor.execute("SELECT checksum, suspended_at FROM ops.contract_state").fetchone()
    if row is None:
        yield Finding("state", "no apply was ever recorded", "run `opsctl contract apply`")
    elif row[1] is not None:
        yield Finding(
            "state", f"suspended since {row[1].astimezone(UTC):%Y-%m-%d %H:%M} UTC", "run `opsctl contract apply`"
        )
    elif row[0] != what.adapter.checksum:
        yield Finding("state", f"another version of {what.adapter.file} was applied", "run `opsctl contract apply`")


PARTS: Mapping[str, Part] = {
    "views": _live,
    "functions": _writes,
    "adapter": _fits,
    "values": _values,
    "indexes": _indexes,
    "plans": _plans,
    "grants": _grants,
}
