"""What is remembered: every action of a person and every finding of ours, in one chain of hashes.

An event is written by `ops.audit_append` alone (migration 0006), which takes who, as what, from where and when from the
server. What a caller adds is redacted here, on the way. `audit_chain` proves that nothing was changed since.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import errors
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from opslib.errors import RefusedError, SourceError
from opslib.postgres import conninfo, describe
from opslib.redact import redact

MAX_TARGET, MAX_REASON = 1000, 2000
"""Characters kept of what a person wrote; the table refuses more."""
MAX_PAYLOAD = 16_000
"""Characters of a payload's JSON above which only its beginning is kept, as text."""
LOCK_TIMEOUT_MS = 5_000
"""Longest wait for a turn on the chain; one append holds it for less than a millisecond."""

APPEND = """
SELECT seq, hash, at FROM ops.audit_append(
    %(event)s, %(action)s, %(outcome)s, %(target)s, %(payload)s, %(reason)s, %(error)s, %(host)s, %(intent)s, %(ms)s)
"""


class Outcome(StrEnum):
    """What became of an action."""

    INTENT = "intent"
    """About to be done. Without one of the following behind it: running, or cut off in the middle."""
    ALLOWED = "allowed"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain.

    Attributes:
        seq: The last event's number; 0 of an empty chain.
        hash: Its hash.
        at: When it was written.
    """

    seq: int
    hash: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class Event:
    """What a caller says of an event.

    Attributes:
        event: The audit event's name: `OPS_QUEUE_ACTION`.
        action: What was done: `queues.retry`.
        target: To what.
        payload: The particulars; redacted before they leave this process.
        reason: Why, in the person's words.
    """

    event: str
    action: str
    target: str = ""
    payload: Mapping[str, Any] | None = None
    reason: str = ""


@contextlib.contextmanager
def connect(dsn: str, *, append: bool = True) -> Iterator[psycopg.Connection]:
    """A connection that may append, even where all others of this process only read; or one that only reads, too.

    Raises:
        SourceError: Postgres is away, or our schema is missing.
    """
    try:
        connection = psycopg.connect(conninfo(dsn, application_name="opsctl audit"), autocommit=True)
    except psycopg.OperationalError as exc:
        raise SourceError(f"Postgres: {describe(exc)}; check the DSN and that the server is up") from exc
    try:
        with connection:
            connection.execute(
                "SELECT set_config('default_transaction_read_only', %s, false),"
                " set_config('lock_timeout', %s, false), set_config('search_path', 'pg_catalog, pg_temp', false),"
                " set_config('datestyle', 'ISO', false), set_config('timezone', 'UTC', false)",
                ("off" if append else "on", f"{LOCK_TIMEOUT_MS}ms"),
            )
            yield connection
    except (errors.UndefinedTable, errors.UndefinedFunction, errors.InvalidSchemaName) as exc:
        raise SourceError(f"Postgres: {describe(exc)}; run `opsctl migrate up`") from exc
    except errors.InsufficientPrivilege as exc:
        raise RefusedError(f"{describe(exc)}; log in as an operator who may (docs/operators.md)") from exc
    except psycopg.Error as exc:
        raise SourceError(f"Postgres: {describe(exc)}") from exc


def append(
    connection: psycopg.Connection,
    event: Event,
    outcome: Outcome,
    *,
    error: str = "",
    intent: int | None = None,
    milliseconds: float | None = None,
) -> Head:
    """Add one event, in the connection's transaction if it has one.

    The chain stays locked until that transaction ends, so let this be its last statement.

    Args:
        connection: To the database of schema `ops`.
        event: What happened.
        outcome: What became of it.
        error: Why it was refused or failed.
        intent: The number of the intent it ends.
        milliseconds: How long it took.

    Raises:
        psycopg.Error: Refused by the database, or it is away.
    """
    parameters = {
        "event": event.event,
        "action": event.action,
        "outcome": outcome.value,
        "target": _line(event.target, MAX_TARGET),
        "payload": Jsonb(_payload(event.payload or {})),
        "reason": _line(event.reason, MAX_REASON),
        "error": _line(error, MAX_REASON),
        "host": _line(socket.gethostname(), 255),
        "intent": intent,
        "ms": None if milliseconds is None else round(milliseconds),
    }
    with connection.cursor(row_factory=class_row(Head)) as cursor:
        head = cursor.execute(APPEND, parameters).fetchone()
    assert head is not None  # noqa: S101 - the function returns one row or raises
    return head


def head(connection: psycopg.Connection) -> Head:
    """The chain's end as the database has it."""
    with connection.cursor(row_factory=class_row(Head)) as cursor:
        found = cursor.execute("SELECT seq, hash, at FROM ops.audit_head").fetchone()
    if found is None:
        raise missing_head()
    return found


def verified(connection: psycopg.Connection, findings: Sequence[str], events: int, anchors: int) -> Head:
    """Note that the chain was proved, or that it was not: what says when it was last looked at."""
    particulars = {"events": events, "anchors": anchors, "findings": list(findings)[:20]}
    outcome = Outcome.FAILED if findings else Outcome.ALLOWED
    event = Event("OPS_AUDIT_VERIFY", "audit.verify", f"{events} events", particulars)
    return append(connection, event, outcome, error="; ".join(findings))


def missing_head() -> SourceError:
    """The chain's end is gone."""
    return SourceError("ops.audit_head is empty: somebody removed its row; see docs/operators.md, `Damage`")


def _line(text: str, most: int) -> str:
    """One line, redacted, without control characters, no longer than `most`."""
    clean = "".join(char if char.isprintable() else " " for char in str(redact(text)))
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def _payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON can say it; PostgreSQL's knows no NUL."""
    text = json.dumps(redact(dict(payload)), default=str).replace("\\u0000", "\\ufffd")
    if len(text) > MAX_PAYLOAD:
        return {"cut": text[:MAX_PAYLOAD]}
    kept: dict[str, Any] = json.loads(text)
    return kept
