"""Export records as CSV or NDJSON: one COPY on the server, a row at a time through us, whatever the size.

A text that a spreadsheet would take for a formula is defused on the server (CSV); a number stays one. Rows come oldest
first, so that an export that broke off goes on behind the last whole row.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal

import psycopg
from psycopg import sql
from psycopg.postgres import types as server_types

from opslib.areas import records
from opslib.areas.queries import NAMED, SAMPLE, Where
from opslib.areas.records import Connection
from opslib.errors import ConfigError, OpsError
from opslib.formula import BREAKS, FORMULA

Style = Literal["csv", "ndjson"]

BUFFER = 256 * 1024
TELL_EVERY = 20_000  # rows between two reports of progress

SPREAD = frozenset(server_types[name].oid for name in ("text", "varchar", "bpchar", "name", "json", "jsonb"))
"""Types whose cells may hold anything. All others write themselves: a number, a time, a uuid, true or false."""


@dataclass(frozen=True, slots=True)
class Export:
    """What can be exported.

    Attributes:
        query: Its named query; the first column tells rows apart.
        time: The column its rows are ordered by, before the id.
        id: The column that tells apart what happened at once.
        filters: Of --status, --email, --provider and --type, which it takes; --from and --to every one.
        address: The function that tells ops_super the whole address of a row's first column.
    """

    query: str
    time: str
    id: str
    filters: frozenset[str]
    address: str | None = None

    @property
    def database(self) -> Where:
        """Where its rows are."""
        return NAMED[self.query].database


EXPORTS: Mapping[str, Export] = MappingProxyType(
    {
        "orders": Export(
            "orders_export",
            "created_at",
            "order_id",
            frozenset({"status", "email"}),
            address="ops_view.order_email",
        ),
        "payments": Export("payments_export", "created_at", "payment_id", frozenset({"status", "email", "provider"})),
        "webhooks": Export("webhooks_export", "occurred_at", "event_id", frozenset({"status", "provider", "type"})),
        "reservations": Export("reservations_export", "reserved_at", "reservation_id", frozenset({"status", "email"})),
        "job-runs": Export("job_runs_export", "queued", "run", frozenset({"status"})),
        "audit": Export("audit_export", "at", "seq", frozenset({"status"})),
    }
)


@dataclass(slots=True)
class Progress:
    """How far an export has come.

    Attributes:
        rows: Written so far.
        last: The last of them as the server sent it.
    """

    rows: int = 0
    last: bytes = b""


class Copy:
    """One export.

    Args:
        connection: From `records.connect`.
        export: What.
        filters: By name; None is no filter. `from` and `to` are times.
        style: The format.
        after: The key behind which to go on.
        unmask: Whole e-mail addresses. The caller has written down who asked for them, and why.

    Raises:
        ConfigError: A filter this export does not take.
    """

    def __init__(
        self,
        connection: Connection,
        export: Export,
        filters: Mapping[str, Any],
        *,
        style: Style,
        after: str | None = None,
        unmask: bool = False,
    ) -> None:
        at, id_ = records.read_key(after) if after else (None, None)
        given = {name: value for name, value in {**filters, "after_at": at}.items() if value is not None}
        refused = sorted(given.keys() - export.filters - {"from", "to", "after_at"})
        if refused:
            raise ConfigError(f"this export takes no --{refused[0]}; it takes {', '.join(sorted(export.filters))}")
        if unmask and export.address is None:
            raise ConfigError("this export holds no e-mail address to unmask")
        self._connection = connection
        self._export = export
        self._style = style
        self._rows = NAMED[export.query].asking(given)
        self._given = {**dict.fromkeys(SAMPLE), **given, "after_id": id_}
        self._columns = self._describe()
        self._unmask = unmask
        self.progress = Progress()

    @property
    def head(self) -> bytes:
        """The first line of a CSV."""
        return ",".join(name for name, _ in self._columns).encode() + b"\n"

    @property
    def key(self) -> str | None:
        """Behind the last row written; None before the first."""
        if not self.progress.last:
            return None
        text = self.progress.last.decode()
        if self._style == "ndjson":
            row = json.loads(text)
        else:
            row = dict(zip((name for name, _ in self._columns), next(csv.reader([text])), strict=True))
        at = row[self._export.time]
        return records.write_key(datetime.fromisoformat(at) if at else None, str(row[self._export.id]))

    def run(self, sink: IO[bytes], tell: Callable[[Progress], None]) -> None:
        """Write every row.

        Args:
            sink: Where to.
            tell: Hears of the progress now and then.

        Raises:
            psycopg.Error: The server is lost, or refuses; `key` says where to go on.
        """
        progress, write = self.progress, sink.write
        # A person waits for an export, so it may take long. Nobody waits for a lock on its behalf.
        self._connection.execute(
            "SELECT set_config('statement_timeout', '0', false), set_config('work_mem', '64MB', false)"
        )
        with self._connection.cursor() as cursor, cursor.copy(self._statement(), self._given) as copy:
            row: Any = b""
            count = 0  # and not progress.rows: a million times an attribute is a tenth of a second
            try:
                for row in copy:  # the server sends each row as one message
                    write(row)
                    count += 1
                    if count % TELL_EVERY == 0:
                        progress.rows = count
                        tell(progress)
            finally:
                progress.rows, progress.last = count, bytes(row)
        tell(progress)

    def _describe(self) -> list[tuple[str, bool]]:
        """Each column, and whether its cells may hold anything."""
        cursor = psycopg.ClientCursor(self._connection)
        cursor.execute(f"SELECT * FROM ({self._rows}) AS q LIMIT 0".encode(), self._given)
        assert cursor.description is not None  # noqa: S101 - a SELECT has columns
        return [(column.name, column.type_code in SPREAD) for column in cursor.description]

    def _statement(self) -> sql.Composed:
        if self._style == "ndjson":
            # In a JSON text no control character stands as itself: so nothing is ever quoted.
            form = "(FORMAT csv, DELIMITER E'\\x02', QUOTE E'\\x01', ENCODING 'UTF8')"
            cells = [self._whole(name) or sql.Identifier("q", name) for name, _ in self._columns]
            named = sql.SQL(", ").join(
                sql.SQL("{} AS {}").format(cell, sql.Identifier(name))
                for cell, (name, _) in zip(cells, self._columns, strict=True)
            )
            select = sql.SQL("SELECT row_to_json(r) FROM (SELECT {} FROM ({}) AS q) AS r")
        else:
            form = "(FORMAT csv, ENCODING 'UTF8')"
            named = sql.SQL(", ").join(self._cell(name, text=text) for name, text in self._columns)
            select = sql.SQL("SELECT {} FROM ({}) AS q")
        inner = select.format(named, sql.SQL(self._rows))
        return sql.SQL("COPY ({}) TO STDOUT {}").format(inner, sql.SQL(form))

    def _whole(self, name: str) -> sql.Composable | None:
        """The whole address in the place of the masked one, where that is asked for."""
        if not self._unmask or name != "email" or self._export.address is None:
            return None
        schema, function = self._export.address.split(".")
        return sql.SQL("{}({}::text)").format(
            sql.Identifier(schema, function), sql.Identifier("q", self._columns[0][0])
        )

    def _cell(self, name: str, *, text: bool) -> sql.Composable:
        cell = self._whole(name) or sql.Identifier("q", name)
        if not text:
            return cell
        # Nearly every cell begins with a letter or a digit, and comparing bytes is cheap.
        return sql.SQL(
            """CASE WHEN {cell} >= 'A' AND {cell} < '{{' OR {cell} >= '0' AND {cell} < ':' THEN {cell}
            WHEN left(ltrim({cell}, {blanks}), 1) = ANY ({formula}) OR left({cell}, 1) = ANY ({breaks})
            THEN '''' || {cell} ELSE {cell} END"""
        ).format(
            cell=sql.SQL('({}::text COLLATE "C")').format(cell),
            blanks=sql.Literal(" \t\r\n\f\v\xa0"),
            formula=sql.Literal(list(FORMULA)),
            breaks=sql.Literal(list(BREAKS)),
        )


@contextlib.contextmanager
def kept(path: Path, *, resume: bool) -> Iterator[IO[bytes]]:
    """A file that gets its name when it is whole; until then, and if it never is, it is called NAME.part.

    Args:
        path: Its name in the end.
        resume: Go on with the part there is.

    Raises:
        OpsError: It cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if resume else os.O_TRUNC)
    try:
        # Only for its owner: what people bought is nobody else's business.
        with os.fdopen(os.open(part, flags, 0o600), "wb", BUFFER) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as exc:
        raise OpsError(f"cannot write {part}: {exc.strerror}; mend that, or name another file with -o") from exc
