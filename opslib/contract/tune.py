"""Make the indexes our queries rely on, while the application goes on reading and writing.

CREATE INDEX CONCURRENTLY waits, twice, until every transaction that began before it has ended. Nothing of the
application waits meanwhile but another change of the same table's schema. If such a transaction never ends we give up,
which leaves an index behind that is invalid: the next call removes it first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import psycopg
from psycopg import errors
from psycopg.rows import dict_row

from opslib.areas.queries import NAMED
from opslib.contract import adapter as adapters
from opslib.contract import indexes
from opslib.contract.adapter import Adapter
from opslib.contract.finding import Finding
from opslib.contract.indexes import Index, Missing
from opslib.contract.session import connect
from opslib.postgres import describe

LOCK_TIMEOUT = timedelta(seconds=30)
"""For each transaction waited for. Longer than a request, shorter than an operator's patience."""

REMEDY = "run `opsctl contract tune --apply`"


@dataclass(frozen=True, slots=True)
class Tuning:
    """What `tune` found and did.

    Attributes:
        missing: What is still missing, the optional included.
        done: The statements that were run, in order.
        findings: What went wrong on the way; empty when all is well.
    """

    missing: tuple[Missing, ...]
    done: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def tune(dsn: str, *, apply: bool, adapter: Adapter | None = None, lock_timeout: timedelta = LOCK_TIMEOUT) -> Tuning:
    """Say which indexes are missing, and with `apply` make those our queries rely on; never the optional ones.

    Args:
        dsn: The application's database; to apply, as the owner of its tables.
        apply: Make them.
        adapter: BitLoot's by default.
        lock_timeout: How long one statement waits for one transaction.

    Raises:
        SourceError: The database is away.
    """
    wanted = (adapter or adapters.load()).indexes
    done: list[str] = []
    findings: list[Finding] = []
    with connect(dsn, "opsctl contract") as connection:
        if apply:
            connection.execute(
                "SELECT set_config('lock_timeout', %s, false), set_config('statement_timeout', '0', false)",
                (f"{lock_timeout / timedelta(milliseconds=1):.0f}ms",),
            )
            for lack in _missing(connection, [index for index in wanted if not index.optional]):
                findings += _mend(connection, lack, done)
        return Tuning(tuple(_missing(connection, wanted)), tuple(done), tuple(findings))


def _missing(connection: psycopg.Connection, wanted: Iterable[Index]) -> list[Missing]:
    wanted = list(wanted)
    with connection.cursor(row_factory=dict_row) as reader:
        parameters = {"tables": indexes.tables(wanted)}
        return indexes.missing(wanted, reader.execute(NAMED["contract_indexes"].sql, parameters).fetchall())


def _mend(connection: psycopg.Connection, lack: Missing, done: list[str]) -> Iterable[Finding]:
    if lack.building:
        yield finding(lack)
    for statement in lack.statements:
        try:
            connection.execute(statement.encode())
        except errors.LockNotAvailable:
            yield Finding(
                lack.index.table,
                "a transaction older than the index stayed open, or another index or VACUUM is at work on the table",
                "see who (SELECT pid, state, xact_start, query FROM pg_stat_activity ORDER BY xact_start), then run "
                "this again: it removes what the attempt left behind",
            )
            return
        except errors.InsufficientPrivilege as exc:
            yield Finding(lack.index.table, describe(exc), "run this as the owner of the application's tables")
            return
        except psycopg.Error as exc:
            if connection.closed:
                raise
            yield Finding(lack.index.table, f"{statement}: {describe(exc)}", "mend that, then run this again")
            return
        done.append(statement)


def finding(lack: Missing) -> Finding:
    """A missing index as a fault of the contract, with the statements that mend it."""
    queries = ", ".join(lack.index.serves)
    if lack.building:
        return Finding(
            f"index {lack.index.table}", f"{lack.problem}; {queries} wait for it", "look again when it is done"
        )
    statements = "; ".join(lack.statements)
    return Finding(f"index {lack.index.table}", f"{lack.problem}, which {queries} need", f"{REMEDY}, or: {statements};")
