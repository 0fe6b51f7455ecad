"""Every statement of every board on a real Postgres, logged in as Grafana is, with what people and attackers type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import make_conninfo

from tests.boards.model import Json, filled, panels, sql_of, targets, variables

LOGIN = "grafana_viewer"
MOST_ROWS = 100

HOSTILE = (
    "'",
    "''",
    "' OR '1'='1",
    "'); DROP TABLE ops.jobs; --",
    "\\'; SELECT pg_sleep(9); --",
    "$$; SELECT 1; $$",
    "}','{",
    "${order:raw}",
    "%s %(order)s",
    "\N{RIGHT SINGLE QUOTATION MARK} OR 1=1 --",
    "x" * 5000,
    "9" * 30,
)
REFUSED = ("22P02", "22003", "22007", "22023")
"""Errors that say "that is no value of this type": the only thing a hostile value may achieve."""


GRAFANA_TYPES = frozenset(
    {"text", "varchar", "int2", "int4", "int8", "float4", "float8", "numeric", "bool", "timestamptz", "uuid"}
)
"""Types its driver turns into a column's; the rest it shows as the server spells it, or not at all."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a statement answers: names of columns, and rows."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: Sequence[tuple[object, ...]]


def viewer(owner: str) -> str:
    """The DSN of a login that is a member of ops_grafana and of nothing else, read-only and impatient."""
    with psycopg.connect(owner, autocommit=True) as admin:
        if not admin.execute("SELECT FROM pg_roles WHERE rolname = %s", (LOGIN,)).fetchall():
            admin.execute(f"CREATE ROLE {LOGIN} LOGIN IN ROLE ops_grafana")
            admin.execute(f"ALTER ROLE {LOGIN} SET statement_timeout = '10s'")
            admin.execute(f"ALTER ROLE {LOGIN} SET default_transaction_read_only = on")
    return make_conninfo(owner, user=LOGIN)


def ask(connection: psycopg.Connection, text: str) -> Frame:
    """Run one statement as Grafana's driver does: no parameters, nothing prepared."""
    cursor = connection.execute(text.encode())
    assert cursor.description
    types = tuple(connection.adapters.types[column.type_code].name for column in cursor.description)
    return Frame(tuple(column.name for column in cursor.description), types, cursor.fetchall())


def problems(board: Json, dsn: str, chosen: Sequence[Mapping[str, str]] = ({},)) -> Iterator[str]:
    """What Postgres says to each statement, and whether the frame is what its panel counts on.

    Args:
        board: Its JSON.
        dsn: From `viewer`.
        chosen: Values of variables, one set after the other.
    """
    named = {panel["title"]: panel for panel, target in targets(board) if "rawSql" in target}
    with psycopg.connect(dsn, autocommit=True) as connection:
        for values in chosen:
            for place, _, text in sql_of(board):
                try:
                    frame = ask(connection, filled(text, board, values))
                except psycopg.Error as exc:
                    yield f"{place}: {values or 'no filter'}: {exc.sqlstate} {str(exc).splitlines()[0]}"
                    continue
                if place in named:
                    yield from (f"{place}: {problem}" for problem in _frame(named[place], frame))
                elif len(frame.columns) != 1:
                    yield f"{place}: {len(frame.columns)} columns to choose from"


def hostile(board: Json, dsn: str) -> Iterator[str]:
    """What a hostile value achieves, that must achieve nothing."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name in variables(board):
            for value in HOSTILE:
                for place, _, text in sql_of(board):
                    if f"${{{name}" not in text:
                        continue
                    try:
                        frame = ask(connection, filled(text, board, {name: value}))
                    except psycopg.Error as exc:
                        if exc.sqlstate not in REFUSED:
                            yield f"{place}: {name} = {value[:40]!r}: {exc.sqlstate} {str(exc).splitlines()[0]}"
                        continue
                    if frame.rows:
                        yield f"{place}: {name} = {value[:40]!r} finds {len(frame.rows)} rows"


def _frame(panel: Json, frame: Frame) -> Iterator[str]:
    if len(set(frame.columns)) != len(frame.columns):
        yield f"two columns of one name: {frame.columns}"
    if len(frame.rows) > MOST_ROWS:
        yield f"{len(frame.rows)} rows"
    if unknown := set(frame.types) - GRAFANA_TYPES:
        yield f"columns of a type Grafana does not know: {sorted(unknown)}"
    for override in panel["fieldConfig"]["overrides"]:
        matcher = override["matcher"]
        if matcher["id"] == "byName" and matcher["options"] not in frame.columns:
            yield f"no column {matcher['options']}"
    for transformation in panel.get("transformations") or ():
        for column in transformation["options"].get("excludeByName", {}):
            if column not in frame.columns:
                yield f"no column {column} to hide"


def scans(board: Json, dsn: str, chosen: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Statements that would read a whole table of the application's, however large."""
    with psycopg.connect(dsn) as connection:
        connection.execute("SET enable_seqscan = off")
        for values in chosen:
            for place, source, text in sql_of(board):
                if source != "bitloot-app":
                    continue
                lines = connection.execute(f"EXPLAIN {filled(text, board, values)}".encode()).fetchall()
                for (line,) in lines:
                    if "Seq Scan" in line and not any(small in line for small in SMALL):
                        yield f"{place}: {values or 'no filter'}: {line.strip()}"


SMALL = ("product_inventory",)
"""Tables that are read whole, being small: what is in stock."""


def tables(board: Json) -> int:
    """How many panels ask a database."""
    return sum(any("rawSql" in target for target in panel["targets"]) for panel in panels(board))
