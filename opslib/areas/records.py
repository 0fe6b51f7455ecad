"""The records people look up: orders, payments, webhook events, reservations, users, sessions, the application's audit.

Each list is one named query (`records.sql`), newest first, a page at a time. Where a page ends is said by a key, a time
and an id: `2026-01-01T12:00:00.5Z/8c1f…`. Unlike an offset it costs the same on every page, and rows that come in
meanwhile shift nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import psycopg
from psycopg import errors
from psycopg.rows import dict_row

from opslib.areas.queries import NAMED, SAMPLE
from opslib.errors import ConfigError, NotFoundError, RefusedError, SourceError
from opslib.postgres import conninfo, describe, explain

Row = dict[str, Any]
Connection = psycopg.Connection[Row]

PAGE = 100
"""Rows in a page at most."""
PATIENCE = timedelta(seconds=30)
"""After which the server gives up a statement: somebody waits for it, and the application's own work goes before."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One kind of record.

    Attributes:
        name: As on the command line.
        newest: The named query of its list.
        of_email: The named query that finds it by an exact address; None where it holds none.
        time: The column it is ordered by ...
        id: ... and the one that tells apart what happened at once.
        export: The named query of its export; None where there is none.
        address: The function that tells ops_super the whole address of a row's `id`.
    """

    name: str
    newest: str
    time: str
    id: str
    of_email: str | None = None
    export: str | None = None
    address: str | None = None

    def key(self, row: Mapping[str, Any]) -> str:
        """Where the page that ends with this row ends."""
        return write_key(row[self.time], str(row[self.id]))


LISTINGS: Mapping[str, Listing] = MappingProxyType(
    {
        listing.name: listing
        for listing in (
            Listing(
                "orders",
                "orders_newest",
                "created_at",
                "order_id",
                of_email="orders_of_email",
                export="orders_export",
                address="ops_view.order_email",
            ),
            Listing("payments", "payments_newest", "created_at", "payment_id", export="payments_export"),
            Listing("webhooks", "webhooks_newest", "occurred_at", "event_id", export="webhooks_export"),
            Listing(
                "reservations", "reservations_newest", "reserved_at", "reservation_id", export="reservations_export"
            ),
            Listing(
                "users",
                "users_newest",
                "created_at",
                "user_id",
                of_email="users_of_email",
                address="ops_view.user_email",
            ),
            Listing("sessions", "sessions_newest", "expires_at", "session_id"),
            Listing("app-audit", "app_audit_newest", "created_at", "entry_id"),
        )
    }
)


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a list.

    Attributes:
        rows: Newest first.
        next: The key behind which the next page begins; None on the last one.
    """

    rows: Sequence[Row]
    next: str | None


def write_key(at: datetime | None, id_: str) -> str:
    """`2026-01-01T12:00:00.5Z/8c1f…`; what has no time comes before all time."""
    return f"{'-infinity' if at is None else at.astimezone(UTC).isoformat().replace('+00:00', 'Z')}/{id_}"


def read_key(key: str) -> tuple[str, str]:
    """Time and id of a key.

    Raises:
        ConfigError: It is none.
    """
    at, _, id_ = key.partition("/")
    with contextlib.suppress(ValueError):
        if id_ and (at == "-infinity" or datetime.fromisoformat(at).tzinfo is not None):
            return at, id_
    raise ConfigError(f"{key[:80]!r} is no key; one looks like 2026-01-01T12:00:00Z/8c1f…")


@contextlib.contextmanager
def connect(dsn: str) -> Iterator[Connection]:
    """A connection that can only read, and whose errors say what to do.

    Raises:
        SourceError: Unreachable, not set up, or too slow.
        RefusedError: This login may not read that.
        ConfigError: A value is none of its column's.
    """
    try:
        with psycopg.connect(
            conninfo(dsn, application_name="opsctl"), autocommit=True, row_factory=dict_row, prepare_threshold=None
        ) as connection:
            connection.execute(
                "SELECT set_config('default_transaction_read_only', 'on', false), set_config('jit', 'off', false), "
                "set_config('TimeZone', 'UTC', false), set_config('DateStyle', 'ISO', false), "
                "set_config('search_path', 'pg_catalog, pg_temp', false), set_config('statement_timeout', %s, false)",
                (f"{PATIENCE.total_seconds() * 1000:.0f}ms",),
            )
            yield connection
    except errors.QueryCanceled as exc:
        raise SourceError(
            f"the database looked for {PATIENCE.total_seconds():g} s and found no end: narrow it with --from and --to"
        ) from exc
    except errors.InsufficientPrivilege as exc:
        raise RefusedError(f"{describe(exc)}; this login must be a member of ops_staff (docs/contract.md)") from exc
    except errors.DataError as exc:
        raise ConfigError(f"that is no value of its column: {describe(exc)}") from exc
    except psycopg.OperationalError as exc:
        raise SourceError(f"Postgres: {describe(exc)}; check DATABASE_URL and that the server is up") from exc
    except psycopg.Error as exc:
        raise SourceError(f"Postgres: {explain(exc)}") from exc


def rows(connection: Connection, query: str, /, **given: Any) -> list[Row]:
    """What a named query answers; a filter of None is none."""
    filters = {name: value for name, value in given.items() if value is not None}
    return connection.execute(NAMED[query].asking(filters).encode(), {**dict.fromkeys(SAMPLE), **given}).fetchall()


def one(connection: Connection, query: str, what: str, /, **given: Any) -> Row:
    """The one row a named query answers.

    Raises:
        NotFoundError: There is none.
    """
    found = rows(connection, query, **given)
    if not found:
        raise NotFoundError(f"there is no {what}")
    return found[0]


def page(
    connection: Connection,
    listing: Listing,
    filters: Mapping[str, Any],
    *,
    limit: int,
    offset: int = 0,
    after: str | None = None,
) -> Page:
    """One page of a list.

    Args:
        connection: From `connect`.
        listing: Which.
        filters: Parameters of the query by name; None is no filter.
        limit: Rows at most.
        offset: Rows to pass over.
        after: The key where the page before ended.
    """
    at, id_ = read_key(after) if after else (None, None)
    query = listing.newest
    if filters.get("email") is not None and listing.of_email:
        query = listing.of_email
    elif listing.name == "webhooks" and (filters.get("externals") or filters.get("order")):
        query = "webhooks_about"
    # One more than shown says whether there is more.
    found = rows(connection, query, **filters, after_at=at, after_id=id_, limit=offset + limit + 1)[offset:]
    shown = found[:limit]
    return Page(shown, listing.key(shown[-1]) if len(found) > limit else None)


def unmask(connection: Connection, listing: Listing, shown: Sequence[Row]) -> None:
    """Put whole addresses where the masked ones stand. The caller has written down who asked for them, and why.

    Raises:
        psycopg.errors.InsufficientPrivilege: This login is no member of ops_super.
    """
    ids = [str(row[listing.id]) for row in shown]
    found = connection.execute(
        f"SELECT id, {listing.address}(id) AS email FROM unnest(%s::text[]) AS asked (id)".encode(), (ids,)
    ).fetchall()
    whole = {row["id"]: row["email"] for row in found}
    for row in shown:
        row["email"] = whole[str(row[listing.id])]
