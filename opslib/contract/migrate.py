"""Bring our own schema `ops` to a version, one numbered migration at a time, up and down.

What was applied is recorded in `ops.schema_migrations` with the checksum of its file. A file edited after it was
applied is refused, because nobody could say any more what a database holds: write a new migration instead.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import psycopg
from psycopg import errors
from psycopg.rows import class_row

from opslib.contract.session import connect, turn
from opslib.errors import MigrationError
from opslib.postgres import describe

FOLDER = Path(__file__).parent / "migrations"

_FILE = re.compile(r"(?P<version>\d{4})_(?P<name>[a-z0-9_]+)\.(?P<way>up|down)\.sql")

_RECORD = """
DO $$ BEGIN
    IF to_regnamespace('ops') IS NULL THEN -- IF NOT EXISTS would ask for CREATE on the database all the same
        CREATE SCHEMA ops;
    END IF;
END $$;
CREATE TABLE ops.schema_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_by text NOT NULL DEFAULT session_user
);
COMMENT ON TABLE ops.schema_migrations IS 'Migrations of schema ops that stand, each with the sha256 of its up file.';
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step and its way back.

    Attributes:
        version: Its place, from 1 without gaps.
        name: For people.
        up: SQL that applies it.
        down: SQL that takes it back.
    """

    version: int
    name: str
    up: str
    down: str

    @property
    def file(self) -> str:
        """Its up file's name."""
        return f"{self.version:04d}_{self.name}.up.sql"

    @property
    def checksum(self) -> str:
        """The sha256 of the up file, the same whatever line ends a checkout wrote."""
        return hashlib.sha256(self.up.replace("\r\n", "\n").encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Record:
    """One row of `ops.schema_migrations`; `checksum` is a sha256 in hex."""

    version: int
    name: str
    checksum: str
    applied_at: datetime
    applied_by: str


class State(StrEnum):
    """What a database and our files say about one migration."""

    APPLIED = "applied"
    PENDING = "pending"
    EDITED = "edited"
    """Applied, and its file has changed since."""
    UNKNOWN = "unknown"
    """Applied by a newer release: we have no such file."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of `opsctl migrate status`.

    Attributes:
        version: The migration's place.
        name: Its name.
        state: Where it stands.
        applied_at: When it was applied; None while pending.
        applied_by: The database role that applied it.
    """

    version: int
    name: str
    state: State
    applied_at: datetime | None = None
    applied_by: str | None = None


def load(folder: Path = FOLDER) -> tuple[Migration, ...]:
    """Every migration, in order.

    Raises:
        MigrationError: A file is misnamed or lacks its other half, or a number is missing or taken twice.
    """
    texts: dict[tuple[int, str], dict[str, str]] = {}
    for path in sorted(folder.glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path.name}: name it NNNN_what_it_does.up.sql or .down.sql")
        texts.setdefault((int(match["version"]), match["name"]), {})[match["way"]] = path.read_text("utf-8")
    for (version, name), ways in texts.items():
        if ways.keys() != {"up", "down"}:
            raise MigrationError(f"{version:04d}_{name}: a migration is a .up.sql and a .down.sql; one is missing")
    versions = [version for version, _ in texts]
    if versions != list(range(1, len(versions) + 1)):
        raise MigrationError(f"migrations are numbered from 0001 without gaps or doubles, not {versions}")
    return tuple(Migration(version, name, **ways) for (version, name), ways in texts.items())


def status(dsn: str, migrations: Sequence[Migration] | None = None) -> list[Step]:
    """Where each migration stands; writes nothing.

    Raises:
        SourceError: The database is away.
    """
    known = load() if migrations is None else migrations
    with connect(dsn, "opsctl migrate") as connection, connection.cursor() as cursor:
        records = _records(cursor)
    steps = []
    for migration in known:
        record = records.pop(migration.version, None)
        if record is None:
            steps.append(Step(migration.version, migration.name, State.PENDING))
        else:
            state = State.APPLIED if record.checksum == migration.checksum else State.EDITED
            steps.append(Step(record.version, migration.name, state, record.applied_at, record.applied_by))
    rest = [Step(r.version, r.name, State.UNKNOWN, r.applied_at, r.applied_by) for r in records.values()]
    return sorted(steps + rest, key=lambda step: step.version)


def up(dsn: str, to: int | None = None, migrations: Sequence[Migration] | None = None) -> list[Migration]:
    """Apply what is pending, up to and including version `to` (default: all), each in its own transaction.

    Safe to run twice at once: the second waits and finds nothing to do.

    Returns:
        What was applied.

    Raises:
        MigrationError: Files and database contradict each other, or a step failed; that step left nothing behind.
        SourceError: The database is away.
    """
    known = load() if migrations is None else migrations
    _check_target(known, to)
    applied: list[Migration] = []
    with connect(dsn, "opsctl migrate") as connection:
        while step := _up_one(connection, known, to):
            applied.append(step)
    return applied


def down(dsn: str, to: int | None = None, migrations: Sequence[Migration] | None = None) -> list[Migration]:
    """Take back the newest migration, or every one above version `to`, each in its own transaction.

    Returns:
        What was taken back, newest first.

    Raises:
        MigrationError: Files and database contradict each other, or a step failed; that step changed nothing.
        SourceError: The database is away.
    """
    known = load() if migrations is None else migrations
    _check_target(known, to)
    undone: list[Migration] = []
    with connect(dsn, "opsctl migrate") as connection:
        while step := _down_one(connection, known, to):
            undone.append(step)
            if to is None:
                break
    return undone


def _check_target(known: Sequence[Migration], to: int | None) -> None:
    if to is not None and not 0 <= to <= len(known):
        raise MigrationError(f"there is no migration {to}: versions go from 0 (nothing) to {len(known)}")


def _up_one(connection: psycopg.Connection, known: Sequence[Migration], to: int | None) -> Migration | None:
    with turn(connection) as cursor:
        records = _records(cursor)
        _refuse_contradictions(known, records)
        pending = [m for m in known if m.version not in records and (to is None or m.version <= to)]
        if not pending:
            return None
        step = pending[0]
        if _no_records(cursor):
            _run(cursor, step.file, _RECORD)
        _run(cursor, step.file, step.up)
        cursor.execute(
            "INSERT INTO ops.schema_migrations (version, name, checksum) VALUES (%s, %s, %s)",
            (step.version, step.name, step.checksum),
        )
        return step


def _down_one(connection: psycopg.Connection, known: Sequence[Migration], to: int | None) -> Migration | None:
    with turn(connection) as cursor:
        records = _records(cursor)
        _refuse_contradictions(known, records)
        newest = max(records, default=0)
        if newest == 0 or (to is not None and newest <= to):
            return None
        step = known[newest - 1]
        _run(cursor, step.file.replace(".up.", ".down."), step.down)
        cursor.execute("DELETE FROM ops.schema_migrations WHERE version = %s", (step.version,))
        return step


def _records(cursor: psycopg.Cursor) -> dict[int, Record]:
    if _no_records(cursor):
        return {}
    with cursor.connection.cursor(row_factory=class_row(Record)) as reader:
        reader.execute("SELECT version, name, checksum, applied_at, applied_by FROM ops.schema_migrations")
        return {record.version: record for record in reader}


def _no_records(cursor: psycopg.Cursor) -> bool:
    cursor.execute("SELECT to_regclass('ops.schema_migrations') IS NULL")
    row = cursor.fetchone()
    return row is not None and bool(row[0])


def _refuse_contradictions(known: Sequence[Migration], records: Mapping[int, Record]) -> None:
    newest = max(records, default=0)
    if newest > len(known):
        raise MigrationError(
            f"the database is at version {newest}, this release knows {len(known)}: "
            "use the opsctl that applied it, or a newer one"
        )
    for migration in known[:newest]:
        record = records.get(migration.version)
        if record is None:
            raise MigrationError(
                f"{migration.file} was never applied, yet {newest:04d} after it was: "
                "ops.schema_migrations was edited by hand; restore its row"
            )
        if record.checksum != migration.checksum:
            raise MigrationError(
                f"{migration.file} was edited after it was applied on {record.applied_at:%Y-%m-%d} "
                f"(sha256 then {record.checksum[:12]}, now {migration.checksum[:12]}): "
                "put the file back as it was, and write the change as a new migration"
            )


def _run(cursor: psycopg.Cursor, file: str, sql: str) -> None:
    try:
        cursor.execute(sql.encode())
    except errors.LockNotAvailable as exc:
        raise MigrationError(
            f"{file}: something else holds a lock it needs; nothing was changed, run it again"
        ) from exc
    except errors.InsufficientPrivilege as exc:
        raise MigrationError(
            f"{file}: {describe(exc)}; migrate as the database's owner who may also create roles (or a superuser)"
        ) from exc
    except psycopg.Error as exc:
        raise MigrationError(f"{file}: {describe(exc)}; nothing of it was applied") from exc
