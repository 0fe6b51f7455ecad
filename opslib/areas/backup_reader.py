"""Reading a backup: every byte against its digest, opened, unpacked; and restoring it into a database.

What is read is used only when its last byte was right: a restore is one transaction, and its COMMIT is behind the end
of the stream, which is withheld from psql if the digest differs.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO

from isal import isal_zlib
from psycopg import sql

from opslib.areas import age, pg_tools
from opslib.areas.backups import Manifest
from opslib.areas.dump import complaint
from opslib.areas.pg_tools import Tools
from opslib.errors import ConfigError, JobError
from opslib.session import session
from opslib.settings import Settings
from opslib.storage import Storage

UNPACK_BYTES = 64 * 1024
"""Packed bytes opened at a time: deflate makes a thousand of one at most."""
COUNT_SECONDS = 600
"""One table may take this long to count."""

Progress = Callable[[int], None]
"""Told the bytes read so far; raises to stop."""


def content(settings: Settings, storage: Storage, manifest: Manifest, progress: Progress) -> Iterator[bytes]:
    """The dump, as pg_dump wrote it. Reading it to its end is the proof; stopping before proves nothing.

    Raises:
        ConfigError: It is encrypted and no identity is set.
        JobError: The object is not the one its manifest describes, or cannot be opened.
        StorageError: It could not be read.
    """
    stream = _proven(storage.read(manifest.key), manifest, progress)
    if manifest.encryption:
        if settings.backup_age_identity is None:
            raise ConfigError(f"{manifest.key} is encrypted: set BACKUP_AGE_IDENTITY (or BACKUP_AGE_IDENTITY_FILE)")
        stream = age.decrypt(stream, settings.reveal("BACKUP_AGE_IDENTITY"))
    yield from _unpacked(stream, manifest)


def verify(settings: Settings, storage: Storage, manifest: Manifest, progress: Progress) -> None:
    """Read a backup to its end: digest, encryption (if an identity is set), gzip.

    Raises:
        JobError: It is not whole.
        StorageError: It could not be read; so it is not verified.
    """
    if manifest.encryption and settings.backup_age_identity is None:
        for _ in _proven(storage.read(manifest.key), manifest, progress):
            pass  # who keeps the identity elsewhere still has the digest proven here
    else:
        for _ in content(settings, storage, manifest, progress):
            pass


def _proven(chunks: Iterable[bytes], manifest: Manifest, progress: Progress) -> Iterator[bytes]:
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
        progress(size)
        yield chunk
    if digest.hexdigest() != manifest.sha256:
        raise JobError(f"{manifest.key} is damaged: {size} bytes whose SHA-256 is not the manifest's")


def _unpacked(chunks: Iterable[bytes], manifest: Manifest) -> Iterator[bytes]:
    inflate, size = isal_zlib.decompressobj(wbits=31), 0
    try:
        for chunk in chunks:
            for at in range(0, len(chunk), UNPACK_BYTES):
                plain = inflate.decompress(chunk[at : at + UNPACK_BYTES])
                size += len(plain)
                yield plain
            if inflate.unused_data:
                raise JobError(f"{manifest.key} is damaged: something follows the end of its gzip stream")
    except isal_zlib.error as exc:  # type: ignore[misc] # the stub takes the class for a value
        raise JobError(f"{manifest.key} is damaged: its gzip stream is broken") from exc
    if not inflate.eof or size != manifest.dump_size:
        raise JobError(f"{manifest.key} is damaged: {size} bytes of dump, not {manifest.dump_size}")


def restore(dsn: str, tools: Tools, dump: Iterable[bytes]) -> None:
    """Feed a dump to psql, in one transaction: all of it, or none.

    Raises:
        JobError: The database refused it; what it said first.
        StorageError: The dump could not be read to its end.
    """
    command = [tools.program("psql"), "--no-psqlrc", "--quiet", "--no-password", "--single-transaction"]
    command += ["--set=ON_ERROR_STOP=1", "--set=VERBOSITY=verbose", "--output=/dev/null"]
    with subprocess.Popen(  # noqa: S603 - ours, without a shell
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=pg_tools.environment(dsn, application_name="opsctl restore"),
        bufsize=0,
    ) as process:
        assert process.stdin is not None  # noqa: S101 - asked for
        assert process.stderr is not None  # noqa: S101 - asked for
        said = _Listener(process.stderr)
        try:
            with contextlib.suppress(BrokenPipeError):  # psql gave up; why, it says below
                for block in dump:
                    _write(process.stdin, block)
                process.stdin.close()
        except BaseException:
            process.kill()  # before the end of its input, so that it cannot commit
            said.text()  # nobody may be reading a pipe that is about to be closed
            raise
        code = process.wait()
        text = said.text()
    if code:
        raise JobError(f"psql exited with {code}: {_advice(complaint(text))}")


def _write(pipe: IO[bytes], block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[pipe.write(view) :]


class _Listener:
    """Reads what a program complains of, so that it never waits for us; keeps the beginning."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._kept = bytearray()
        self._thread = threading.Thread(target=self._read, args=(stream,), name="psql stderr", daemon=True)
        self._thread.start()

    def _read(self, stream: IO[bytes]) -> None:
        while chunk := stream.read(4096):
            self._kept += chunk[: max(0, 65_536 - len(self._kept))]

    def text(self) -> str:
        self._thread.join()
        return self._kept.decode(errors="replace")


_ADVICE = (
    (r"53100|No space left", "the server's disk is full: make room, or drill on another server"),
    (r"42501|must be (?:owner|member|superuser)", "restore as a superuser of the target, or as the owner of it all"),
    (r"invalid command \\restrict", "this psql is older than the pg_dump of the backup: update the client packages"),
    (r"42P07|42710|42723", "the target is not empty"),
    (r"0A000.*extension|could not open extension", "install the extension's package on the target server"),
)


def _advice(said: str) -> str:
    for pattern, advice in _ADVICE:
        if re.search(pattern, said):
            return f"{said}; {advice}"
    return said


@dataclass(frozen=True, slots=True)
class Difference:
    """A table that has not the rows it should have.

    Attributes:
        table: Schema and name.
        expected: Rows in the dump.
        found: Rows in the database; None: there is no such table.
    """

    table: str
    expected: int
    found: int | None

    def __str__(self) -> str:
        """For people."""
        found = "is missing" if self.found is None else f"has {self.found} rows"
        return f"{self.table} {found}, the backup {self.expected}"


_TABLES = """
SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r'
"""


def compare(dsn: str, manifest: Manifest, progress: Callable[[int, int], None]) -> list[Difference]:
    """Count every table of a restored database; those that differ from the manifest.

    Raises:
        SourceError: They could not be counted.
    """
    differences = []
    with session(dsn, "restore", seconds=COUNT_SECONDS) as connection:
        there = {(row["schema"], row["name"]) for row in connection.execute(_TABLES)}
        for number, table in enumerate(manifest.tables):
            progress(number, len(manifest.tables))
            found = None
            if (table.schema_name, table.name) in there:
                name = sql.Identifier(table.schema_name, table.name)
                row = connection.execute(sql.SQL("SELECT count(*) AS rows FROM ONLY {}").format(name)).fetchone()
                found = row["rows"] if row else None
            if found != table.rows:
                differences.append(Difference(f"{table.schema_name}.{table.name}", table.rows, found))
    return differences


def newer_than(dsn: str, manifest: Manifest) -> None:
    """Refuse a server older than the one the backup was taken of.

    Raises:
        JobError: It is older.
        SourceError: It cannot be asked.
    """
    with session(dsn, "restore") as connection:
        row = connection.execute("SELECT current_setting('server_version_num')::int / 10000 AS major").fetchone()
    if row and row["major"] < manifest.major:
        raise JobError(
            f"the server is PostgreSQL {row['major']}, the backup is of {manifest.major}: take that or a newer one"
        )
