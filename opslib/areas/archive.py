"""Rows on their way out: written to the object store, read back and proven, then deleted as read back.

`archive/<source>/YYYY-MM-DD.ndjson.gz` holds the rows of a day, one JSON object a line, as the table held them. Killed
at any moment it goes on where it stopped, and needs no mark for that: an object is there whole or not at all; a row is
deleted only if a line read back from the store equals it byte for byte (the database compares); and nothing is ever
overwritten. Rows that come, or change, after their day was archived get a second object, `YYYY-MM-DD.2.ndjson.gz`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from itertools import islice

from isal import isal_zlib
from isal.igzip_lib import IsalError

from opslib.areas.queries import NAMED
from opslib.errors import JobError
from opslib.session import Connection
from opslib.storage import Storage
from opslib.storage_upload import Upload

PREFIX = "archive/"
PAGE = 500
"""Rows read, and rows deleted, by one statement: with payloads of 100 kB, all a framework lets in, 50 MB."""
ROUNDS = 3
"""How often rows of one day may change under our hands before it is given up for tonight."""
_GZIP = 16 + isal_zlib.MAX_WBITS
_BUFFER = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """A table whose old rows are archived.

    Attributes:
        name: Its part of the objects' keys.
        connection: To its database.
        oldest: The named query that gives the day of its oldest row.
        read: The function that shows a page of a day: (day, after, batch) to (place, line).
        purge: The function that deletes those rows of a day that equal one of some lines: (day, lines) to a count.
    """

    name: str
    connection: Connection
    oldest: str
    read: str
    purge: str

    def oldest_day(self) -> date | None:
        """The day of its oldest row; None when it is empty."""
        found: date | None = self.connection.execute(NAMED[self.oldest].sql).fetchall()[0]["day"]
        return found

    def pages(self, day: date) -> Iterator[list[str]]:
        """Every row of a day as a line, a page at a time."""
        after = None
        while True:
            page = self.connection.execute(
                f"SELECT place, line FROM {self.read}(%s, %s, %s)", (day, after, PAGE)
            ).fetchall()
            if page:
                yield [row["line"] for row in page]
            if len(page) < PAGE:
                return
            after = page[-1]["place"]

    def delete(self, day: date, lines: list[str]) -> int:
        """Delete those rows that equal one of these lines; how many."""
        rows = self.connection.execute(f"SELECT {self.purge}(%s, %s::text[]) AS purged", (day, lines)).fetchall()
        return int(rows[0]["purged"])


@dataclass(slots=True)
class Archived:
    """What became of one source.

    Attributes:
        keys: The objects written or, after an interruption, taken up again.
        rows: Rows deleted.
    """

    keys: list[str] = field(default_factory=list)
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Proof:
    """What an object was found to hold: its digest, its size, its lines."""

    sha256: str
    bytes: int
    lines: int


class Archive:
    """The archive of one bucket.

    Args:
        storage: The bucket.
        ops: To our own database, which remembers what was proven.
        tick: Called with what is done right now; may raise to stop, at no harm.
    """

    def __init__(self, storage: Storage, ops: Connection, tick: Callable[[str], None]) -> None:
        self._storage = storage
        self._ops = ops
        self._tick = tick

    def move(self, source: Source, before: date, allowed: Callable[[date], bool]) -> Archived:
        """Archive and delete every row of the days before one, the oldest first.

        Args:
            source: Whose.
            before: The first day that stays.
            allowed: May this day's rows go yet?

        Raises:
            JobError: A day may not go yet, an object is not what was proven, or a day's rows never stand still.
            StorageError: The store failed; what it does not hold was not deleted.
        """
        moved = Archived()
        rounds: dict[date, int] = {}
        while (day := source.oldest_day()) is not None and day < before:
            rounds[day] = rounds.get(day, 0) + 1
            if not allowed(day):
                raise JobError(f"the facts of {day} are not final: its rows stay; see why `ops.fact_days` lacks it")
            if rounds[day] > ROUNDS:
                raise JobError(f"rows of {day} in {source.name} change while they are archived: find who writes them")
            self._day(source, day, moved)
        return moved

    def _day(self, source: Source, day: date, moved: Archived) -> None:
        known = {
            row["key"]: row
            for row in self._ops.execute(NAMED["archives_of"].sql, {"source": source.name, "day": day}).fetchall()
        }
        there = {one.key for one in self._storage.list(f"{PREFIX}{source.name}/{day}.")}
        if gone := sorted(key for key in known if key not in there):
            raise JobError(f"{gone[0]} was archived and is not in the bucket: nothing of {day} is deleted; look for it")
        for key in sorted(there):  # of a run that was interrupted
            if key not in known or known[key]["purged_at"] is None:
                self._purge(source, day, key, None, moved)
        key = _free(source.name, day, there)
        if (written := self._write(source, day, key)) is not None:
            self._purge(source, day, key, written, moved)

    def _write(self, source: Source, day: date, key: str) -> str | None:
        """Write what is left of a day; its digest, or None when nothing is left."""
        packer = isal_zlib.compressobj(1, isal_zlib.DEFLATED, _GZIP)
        rows = 0
        with Upload(self._storage, key, content_type="application/gzip") as upload:
            for lines in source.pages(day):
                rows += len(lines)
                upload.write(packer.compress("".join(f"{line}\n" for line in lines).encode()))
                self._tick(f"{key}: {rows} rows written")
            if rows == 0:
                return None
            upload.write(packer.flush())
            upload.commit()
        return upload.sha256

    def _purge(self, source: Source, day: date, key: str, written: str | None, moved: Archived) -> None:
        """Prove an object from end to end; only then delete what it holds."""
        proof = prove(self._storage.read(key))
        kept = self._ops.execute(
            "SELECT ops.archive_verified(%s, %s, %s, %s, %s, %s) AS same",
            (key, source.name, day, proof.sha256, proof.bytes, proof.lines),
        ).fetchall()[0]["same"]
        if not kept or written not in {None, proof.sha256}:
            raise JobError(f"{key} is not what was written there: none of its rows is deleted; keep it and ask why")
        moved.keys.append(key)
        lines = lines_of(self._storage.read(key))
        while page := list(islice(lines, PAGE)):
            moved.rows += source.delete(day, page)
            self._tick(f"{key}: {moved.rows} rows deleted")
        self._ops.execute("SELECT ops.archive_purged(%s)", (key,))


def _free(source: str, day: date, there: Iterable[str]) -> str:
    taken, number = set(there), 2
    key = f"{PREFIX}{source}/{day}.ndjson.gz"
    while key in taken:
        key = f"{PREFIX}{source}/{day}.{number}.ndjson.gz"
        number += 1
    return key


def prove(chunks: Iterable[bytes]) -> Proof:
    """Read an archive to its end.

    Raises:
        JobError: It is not one whole gzip stream of whole lines.
    """
    digest, size = hashlib.sha256(), 0

    def passing() -> Iterator[bytes]:
        nonlocal size
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            yield chunk

    lines = sum(1 for _ in lines_of(passing()))
    return Proof(digest.hexdigest(), size, lines)


def lines_of(chunks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a gzip stream, in bounded memory.

    Raises:
        JobError: It is not one whole gzip stream of whole lines.
    """
    rest = b""
    for part in _unpacked(chunks):
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line.decode()
    if rest:
        raise JobError("an archive ends within a line: it is damaged; keep it and ask why")


def _unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    unpacker = isal_zlib.decompressobj(_GZIP)
    try:
        for chunk in chunks:
            left = chunk
            while left:
                yield unpacker.decompress(left, _BUFFER)
                left = unpacker.unconsumed_tail
            if unpacker.unused_data:
                break
    except IsalError as exc:  # type: ignore[misc] # its stubs call it a value
        raise JobError(f"an archive cannot be unpacked ({exc}): it is damaged; keep it and ask why") from exc
    if not unpacker.eof or unpacker.unused_data:
        raise JobError("an archive is cut off, or something follows it: it is damaged; keep it and ask why")
