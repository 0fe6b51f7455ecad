"""Backups as they lie in the bucket: their keys, the manifest beside each, what was proven of them.

`backups/db/2026-11-21.sql.gz` is a day's dump; a second one of the day has its time, `2026-11-21T153012Z.sql.gz`; one
that is encrypted ends in `.age`. Its manifest is the same key with `.json` behind, and is written last. The bucket is
the truth about what exists; `ops.backup_checks` is the memory of what was proven.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

import psycopg
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from opslib.areas.queries import NAMED
from opslib.errors import JobError, NotFoundError
from opslib.session import session
from opslib.storage import Object, Storage

PREFIX = "backups/db/"
MANIFEST = ".json"
_KEY = re.compile(re.escape(PREFIX) + r"(?P<day>\d{4}-\d\d-\d\d)(?:T(?P<time>\d{6})Z)?\.sql\.gz(?P<age>\.age)?")


def key_for(at: datetime, *, encrypted: bool, first: bool) -> str:
    """The key of a backup begun at that time: the day's plain name for the first of a day."""
    at = at.astimezone(UTC)
    name = f"{at:%Y-%m-%d}" if first else f"{at:%Y-%m-%dT%H%M%SZ}"
    return f"{PREFIX}{name}.sql.gz{'.age' if encrypted else ''}"


def time_of(key: str) -> datetime | None:
    """When the backup of that key was begun, to the day for a day's first; None: it is no backup's key."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    try:
        return datetime.strptime(match["day"] + (match["time"] or "000000"), "%Y-%m-%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


class TableRows(BaseModel):
    """How many rows one table has in a dump."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_name: str
    name: str
    rows: NonNegativeInt


class Manifest(BaseModel):
    """What was written, by who wrote it.

    Attributes:
        key: The dump's key.
        sha256: Of the object, in hexadecimal.
        size: Bytes of the object.
        dump_size: Bytes of the dump, before compression.
        started: When the dump began; it shows the database as it was then.
        seconds: How long dump and upload took.
        database: Its name.
        encoding: Its character encoding.
        server_version: The server's.
        client_version: pg_dump's.
        encryption: `age`, or None.
        tables: Each table's rows, counted in the dump itself.
        ops_version: Ours.
        run: The job run that made it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    sha256: str
    size: NonNegativeInt
    dump_size: NonNegativeInt
    started: datetime
    seconds: float
    database: str
    encoding: str
    server_version: str
    client_version: str
    encryption: str | None
    tables: tuple[TableRows, ...]
    ops_version: str
    run: int

    @property
    def major(self) -> int:
        """The server's major version."""
        return int(self.server_version.split(".")[0])

    @property
    def rows(self) -> int:
        """Of all tables."""
        return sum(table.rows for table in self.tables)

    def dumps(self) -> bytes:
        """As the object beside the dump; its last field is a digest of the others."""
        content = self.model_dump(mode="json")
        return json.dumps({**content, "manifest_sha256": _digest(content)}, indent=1).encode()

    @classmethod
    def loads(cls, text: bytes, key: str) -> Self:
        """Read it back.

        Raises:
            JobError: It is not what was written, or belongs to another dump.
        """
        try:
            content = json.loads(text)
            digest = content.pop("manifest_sha256")
            manifest = cls.model_validate(content)
        except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as exc:
            raise JobError(f"{key}{MANIFEST} is no manifest of ours; the backup cannot be proven by it") from exc
        if digest != _digest(content) or manifest.key != key:
            raise JobError(f"{key}{MANIFEST} was altered; the backup cannot be proven by it")
        return manifest


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Backup:
    """One dump in the bucket.

    Attributes:
        key: Its key.
        at: When it was begun, as its key says.
        stored: The object.
        has_manifest: Without one it cannot be proven.
    """

    key: str
    at: datetime
    stored: Object
    has_manifest: bool

    @property
    def written(self) -> datetime:
        """When the object came to be."""
        return self.stored.modified


def among(objects: Sequence[Object]) -> tuple[Backup, ...]:
    """The backups of a complete listing, oldest first."""
    keys = {one.key for one in objects}
    dated = ((time_of(one.key), one) for one in objects)
    found = (Backup(one.key, at, one, one.key + MANIFEST in keys) for at, one in dated if at is not None)
    return tuple(sorted(found, key=lambda backup: (backup.at, backup.written, backup.key)))


def listing(storage: Storage) -> tuple[Backup, ...]:
    """Every backup there is, oldest first.

    Raises:
        StorageError: The listing could not be had whole.
    """
    return among(storage.list(PREFIX))


def one(storage: Storage, key: str | None = None) -> Backup:
    """The backup of that key, or the newest.

    Raises:
        NotFoundError: There is none.
        StorageError: Nobody knows.
    """
    every = listing(storage)
    for backup in reversed(every):
        if key in {None, backup.key}:
            return backup
    what = f"backup {key}" if key else "backup"
    raise NotFoundError(f"there is no {what} in {storage.bucket}/{PREFIX}; see `opsctl backups list`")


def manifest(storage: Storage, backup: Backup) -> Manifest:
    """What its writer said of it.

    Raises:
        JobError: There is no manifest, it was altered, or the object has another size than it says.
        StorageError: It could not be read.
    """
    if not backup.has_manifest:
        raise JobError(f"{backup.key} has no manifest: its backup did not finish, and nothing about it can be proven")
    found = Manifest.loads(storage.get(backup.key + MANIFEST), backup.key)
    if found.size != backup.stored.size:
        raise JobError(f"{backup.key} has {backup.stored.size} bytes, its manifest says {found.size}")
    return found


def begin(dsn: str, manifest: Manifest) -> None:
    """Keep the manifest of an object that is about to be made, until `finish`.

    Raises:
        SourceError: It could not be written; the object must not be made.
    """
    with session(dsn, "backups") as connection:
        connection.execute(
            "SELECT ops.backup_begun(%s, %s, %s)", (manifest.key, manifest.size, manifest.dumps().decode())
        )


def finish(dsn: str, storage: Storage, *, confirmed: str = "") -> tuple[str, ...]:
    """Put every kept manifest beside its object, where that came to be; the keys it was missing from.

    Only for whoever has the turn: of a run still at work the object may be there in a moment.

    Args:
        dsn: Where the manifests are kept.
        storage: The bucket.
        confirmed: The key of an object the store has just said to be whole (see `Upload`): it is not asked again, for
            some read every byte of an object they are asked about.

    Raises:
        SourceError: Our own records, or the bucket, could not be asked; what is kept stays kept.
    """
    late = []
    with session(dsn, "backups") as connection:
        for row in connection.execute(NAMED["backup_unfinished"].sql).fetchall():
            key = row["key"]
            if (key == confirmed or _is_whole(storage, key, row["bytes"])) and storage.head(key + MANIFEST) is None:
                text = row["manifest"].encode()
                storage.put(key + MANIFEST, text, content_type="application/json", overwrite=False)
                late.append(key)
            connection.execute("SELECT ops.backup_finished(%s)", (key,))
    return tuple(late)


def _is_whole(storage: Storage, key: str, size: int) -> bool:
    stored = storage.head(key)
    return stored is not None and stored.size == size


class Kind(StrEnum):
    """How a backup was checked."""

    VERIFY = "verify"
    """Read to its end: digest and gzip are right."""
    DRILL = "drill"
    """Restored, and every table has its rows."""


@dataclass(frozen=True, slots=True)
class Check:
    """One attempt to prove a backup.

    Attributes:
        key: Which.
        kind: How.
        ok: Was it proven? What could not be checked is not.
        sha256: The digest the manifest gives it; a proof holds for this content only.
        bytes: Of the object.
        seconds: How long it took.
        error: Why not.
    """

    key: str
    kind: Kind
    ok: bool
    sha256: str
    bytes: int
    seconds: float
    error: str = ""


def remember(dsn: str, check: Check, run: int) -> None:
    """Write down what became of a check.

    Raises:
        SourceError: It could not be written.
    """
    with session(dsn, "backups") as connection:
        connection.execute(
            "SELECT ops.backup_checked(%s, %s, %s, %s, %s, %s, %s, %s)",
            (check.key, check.kind, check.ok, check.sha256, check.bytes, check.seconds, check.error, run or None),
        )


def checks(dsn: str) -> dict[tuple[str, Kind], Mapping[str, Any]]:
    """The last check of each kind of each backup.

    Raises:
        SourceError: They could not be read.
    """
    with session(dsn, "backups") as connection:
        rows = connection.execute(NAMED["backup_checks_last"].sql).fetchall()
    return {(row["key"], Kind(row["kind"])): row for row in rows}


class Turn:
    """That nobody else does the same is certain while this holds; see `exclusively`."""

    def __init__(self, connection: psycopg.Connection[Any], what: str) -> None:
        self._connection = connection
        self._what = what

    def holds(self) -> None:
        """Go on only if it still does.

        Raises:
            JobError: The connection was lost, and with it the turn.
        """
        try:
            self._connection.execute("SELECT 1")
        except psycopg.Error as exc:
            raise JobError(f"{self._what}: the connection that kept others out was lost; nothing was finished") from exc


@contextmanager
def exclusively(dsn: str, what: str) -> Iterator[Turn]:
    """Keep every other run of `what` out, on whatever host, while the block runs.

    By a lock of a transaction that stays open and idle: that holds behind a connection pooler, and without a snapshot
    it keeps no vacuum from its work.

    Raises:
        JobError: Another one is running.
        SourceError: Postgres cannot be asked.
    """
    with session(dsn, what) as connection, connection.transaction():
        connection.execute("SELECT set_config('idle_in_transaction_session_timeout', '0', true)")
        got = connection.execute(
            "SELECT pg_try_advisory_xact_lock(hashtextextended('ops.' || %s, 0)) AS got", (what,)
        ).fetchone()
        if not got or not got["got"]:
            raise JobError(f"another {what} is running; this one did nothing")
        yield Turn(connection, what)
