"""Postgres as an exporter needs it: few connections, every statement under a deadline, a hung server never waited for.

`statement_timeout` cannot help when the server itself stands still (SIGSTOP, a frozen disk): then nobody enforces it,
and cancelling politely waits for the same server. So at the deadline the socket is shut down on our side, which wakes
the waiting call with an error; the pool replaces the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row

from opslib.errors import SourceError

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

T = TypeVar("T")
Connection = psycopg.AsyncConnection[DictRow]
Params = Mapping[str, Any] | Sequence[Any]

CONNECT_TIMEOUT = 2  # seconds; the least libpq accepts
KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}


_reading: ContextVar[bool] = ContextVar("reading", default=False)


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Whatever connects meanwhile cannot write: the server refuses. So a command that says it only reads does."""
    token = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(token)


def only_reading() -> bool:
    """Are we within `reading`?"""
    return _reading.get()


def conninfo(dsn: str, *, application_name: str) -> str:
    """`dsn` with our application name, a connect timeout and keepalives."""
    return make_conninfo(dsn, application_name=application_name, connect_timeout=CONNECT_TIMEOUT, **KEEPALIVES)


async def within(seconds: float, connection: Connection, work: Coroutine[Any, Any, T]) -> T:
    """Finish `work` on `connection` in time, or sever the connection.

    Raises:
        SourceError: It took longer than `seconds`.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if done:
            return task.result()
        raise SourceError(
            f"Postgres did not answer within {seconds:g} s; is it hung, or the statement waiting for a lock?"
        )
    finally:
        if not task.done():
            _sever(connection)
            await asyncio.wait({task}, timeout=1)
            task.cancelled() or task.exception()  # retrieved: the deadline is the error that counts


def _sever(connection: Connection) -> None:
    if connection.closed:
        return
    with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        try:
            duplicate.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # already gone


class Database:
    """One database as one exporter uses it.

    Args:
        dsn: Where it is.
        application_name: How it shows in pg_stat_activity.
        read_only: Refuse every write at the server.
        size: Connections at most.
        statement_timeout: Seconds after which the server ends a statement by itself.
    """

    def __init__(
        self, dsn: str, *, application_name: str, read_only: bool = False, size: int = 3, statement_timeout: float = 5
    ) -> None:
        from psycopg_pool import AsyncConnectionPool  # noqa: PLC0415 - a command that connects once needs no pool

        self._read_only = read_only or only_reading()
        self._statement_timeout = statement_timeout
        self._slots = asyncio.Semaphore(size - 1)  # one connection stays free for the ping
        self._ping: asyncio.Task[None] | None = None
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            conninfo(dsn, application_name=application_name),
            kwargs={"autocommit": True, "row_factory": dict_row},
            configure=self._configure,
            min_size=0,  # connect when asked: a server that is away costs one attempt per question, not a queue of them
            max_size=size,
            reconnect_timeout=CONNECT_TIMEOUT,  # give up soon and start afresh, or the back-off outlives the outage
            open=False,
        )

    async def _configure(self, connection: Connection) -> None:
        await connection.execute(
            # No jit: what looks dear before it runs (a count per status) would be compiled first, for 0.1 s and more.
            "SELECT set_config('jit', 'off', false), set_config('statement_timeout', %s, false), "
            "set_config('default_transaction_read_only', %s, false)",
            (f"{self._statement_timeout * 1000:.0f}ms", "on" if self._read_only else "off"),
        )

    async def open(self) -> None:
        """Ready to be asked; connects at the first question."""
        await self._pool.open()

    async def close(self) -> None:
        """Let go of every connection."""
        await self._pool.close(timeout=1)

    async def rows(
        self, sql: str, params: Params | None = None, *, seconds: float | None = None, binary: bool = False
    ) -> list[DictRow]:
        """Every row of one statement.

        Args:
            sql: The statement, with `%(name)s` parameters.
            params: Their values.
            seconds: The deadline; a little over the statement timeout by default.
            binary: Fetch in the server's own format: cheaper, for thousands of rows of built-in types.

        Raises:
            SourceError: Unreachable, hung, or refused by the server.
        """
        async with self._slots:
            return await self._rows(sql, params, seconds or self._statement_timeout + 1, binary=binary)

    async def _rows(self, sql: str, params: Params | None, seconds: float, *, binary: bool = False) -> list[DictRow]:
        from psycopg_pool import PoolTimeout  # noqa: PLC0415 - as above

        try:
            async with self._pool.connection(timeout=min(seconds, CONNECT_TIMEOUT + 1)) as connection:
                return await within(seconds, connection, _fetch(connection, sql, params, binary=binary))
        except PoolTimeout as exc:
            raise SourceError("Postgres cannot be reached; check the DSN and that the server is up") from exc
        except psycopg.Error as exc:
            raise SourceError(f"Postgres: {explain(exc)}") from exc

    async def ping(self) -> None:
        """Is it there and does it answer, within half a second? Asked at once by several, it asks the server once.

        Raises:
            SourceError: No.
        """
        if self._ping is None or self._ping.done():
            self._ping = asyncio.create_task(self._answer())
        await asyncio.shield(self._ping)

    async def _answer(self) -> None:
        await self._rows("SELECT 1", None, 0.4)


async def _fetch(connection: Connection, sql: str, params: Params | None, *, binary: bool) -> list[DictRow]:
    cursor = await connection.execute(sql, params, binary=binary)
    return await cursor.fetchall() if cursor.description else []


def describe(exc: psycopg.Error) -> str:
    """The server's own first line, without DETAIL and CONTEXT: those can quote a row's values."""
    primary = exc.diag.message_primary if exc.diag else None
    text = primary or str(exc).strip() or type(exc).__name__
    return text.splitlines()[0]


_MISSING = (
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
)


def explain(exc: psycopg.Error) -> str:
    """`describe`, and what to do where our own set-up is incomplete."""
    text = describe(exc)
    if isinstance(exc, psycopg.errors.InsufficientPrivilege):
        return f"{text}; this login must be a member of ops_exporter (docs/contract.md)"
    if isinstance(exc, _MISSING):
        ours = '"ops"' in text or "ops." in text
        return f"{text}; run `opsctl {'migrate up' if ours else 'contract apply'}`"
    return text
