"""Writing a backup: from the database to the bucket in one stream, an object only once it is known to be whole.

The order is the point. Nothing has the final key before pg_dump exited with 0 and its last line was seen; nothing has a
manifest before the object was there in its full size; and only who finds both speaks of a backup.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import psycopg
import structlog

from opslib import build
from opslib.areas import age, backups, pg_tools
from opslib.areas.backups import Manifest, TableRows, Turn
from opslib.areas.dump import Dump, Gzip, RowCounter
from opslib.errors import JobError
from opslib.session import session
from opslib.settings import Settings
from opslib.storage import Storage
from opslib.storage_upload import Upload

Progress = Callable[[int, int], None]
"""Told the bytes dumped so far and the size of the database; raises to stop."""


@dataclass(frozen=True, slots=True)
class _Source:
    """The database to be dumped."""

    database: str
    encoding: str
    version: str
    size: int
    roles: tuple[str, ...]

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])


_ROLES = """
SELECT rolname FROM pg_roles r
WHERE oid = 10 OR oid IN (SELECT refobjid FROM pg_shdepend
                          WHERE refclassid = 'pg_authid'::regclass
                            AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database()))
ORDER BY rolname
"""
"""Whoever owns something in here or was granted something: 10 is the first superuser, whom no dependency names."""


def write(settings: Settings, storage: Storage, turn: Turn, *, now: datetime, run: int, progress: Progress) -> Manifest:
    """Back the database up; what is returned is in the bucket, with its manifest.

    Args:
        settings: Which database, and to whom it is encrypted.
        storage: The bucket.
        turn: That no other backup runs.
        now: The time, for the key.
        run: The job's run.
        progress: See `Progress`.

    Raises:
        ConfigError: No pg_dump fits, or a recipient is wrong.
        JobError: The dump did not come to its end.
        SourceError: The database or the bucket failed.
    """
    assert settings.backup_dsn is not None  # noqa: S101 - the job needs it
    assert settings.ops_dsn is not None  # noqa: S101 - as before
    dsn, ops = settings.backup_dsn.get_secret_value(), settings.ops_dsn.get_secret_value()
    recipients = age.recipients(settings.backup_age_recipients) if settings.backup_age_recipients else None
    source = _inspect(dsn)
    tools = pg_tools.choose(source.major, settings)
    counter, gzip, started = RowCounter(), Gzip(), time.monotonic()
    with Dump(tools, pg_tools.environment(dsn, application_name="opsctl backup-database")) as dump:
        # pg_dump reads the catalog meanwhile; of its output no more than a pipe is full before somebody reads it.
        for abandoned in storage.pending(backups.PREFIX):  # it is our turn, so whoever began it is gone
            storage.abort(abandoned)
        for left in backups.finish(ops, storage):
            structlog.get_logger().warning("backup.finished_late", key=left)
        key = _free_key(storage, now, encrypted=recipients is not None)
        with Upload(storage, key, content_type="application/gzip", expected=source.size) as upload:

            def blocks() -> Iterator[bytes]:
                yield _roles(source.roles)
                for block in dump.blocks():
                    counter.feed(block)
                    progress(gzip.size, source.size)
                    yield block

            stream = gzip.compress(blocks())
            for chunk in stream if recipients is None else age.encrypt(stream, recipients):
                upload.write(chunk)
            if not counter.complete:
                raise JobError("pg_dump exited with 0, but its last line is missing; nothing was kept")
            manifest = Manifest(
                key=key,
                sha256=upload.sha256,
                size=upload.size,
                dump_size=gzip.size,
                started=now,
                seconds=round(time.monotonic() - started, 3),
                database=source.database,
                encoding=source.encoding,
                server_version=source.version,
                client_version=tools.version,
                encryption="age" if recipients is not None else None,
                tables=tuple(
                    TableRows(schema_name=schema, name=name, rows=rows)
                    for (schema, name), rows in sorted(counter.tables.items())
                ),
                ops_version=build.version(),
                run=run,
            )
            backups.begin(ops, manifest)  # from here on the next run could finish what this one does not
            turn.holds()
            upload.commit()
    if key not in backups.finish(ops, storage, confirmed=key if upload.confirmed else ""):
        raise JobError(f"{key} is not in bucket {storage.bucket} as it was sent; the backup has no manifest")
    return manifest


def _inspect(dsn: str) -> _Source:
    with session(dsn, "backup-database") as connection:
        row = connection.execute(
            """SELECT current_database() AS database, pg_database_size(current_database()) AS size,
                      current_setting('server_encoding') AS encoding, current_setting('server_version') AS version"""
        ).fetchone()
        assert row is not None  # noqa: S101 - a SELECT without FROM
        roles = tuple(found["rolname"] for found in connection.execute(_ROLES))
    return _Source(row["database"], row["encoding"], row["version"].split()[0], row["size"], roles)


def _roles(names: tuple[str, ...]) -> bytes:
    """What a server needs before it takes the dump without an error: the roles it names, without login.

    A dump of one database holds none. One that is there stays as it is.
    """
    statements = "".join(
        f"DO $ops$ BEGIN IF to_regrole({_literal(_identifier(name))}) IS NULL THEN "
        f"CREATE ROLE {_identifier(name)} NOLOGIN; END IF; END $ops$;\n"
        for name in names
        if "$ops$" not in name
    )
    return f"-- Roles this database names, made without login where they are missing.\n\n{statements}\n".encode()


def _identifier(name: str) -> str:
    return psycopg.sql.Identifier(name).as_string()


def _literal(text: str) -> str:
    return psycopg.sql.Literal(text).as_string()


def _free_key(storage: Storage, now: datetime, *, encrypted: bool) -> str:
    """The day's plain key, or one with the time if the day has a backup of either kind."""
    plain = [backups.key_for(now, encrypted=kind, first=True) for kind in (False, True)]
    first = not any(storage.head(key) or storage.head(key + backups.MANIFEST) for key in plain)
    return backups.key_for(now, encrypted=encrypted, first=first)
