"""Where reports are read: a folder any web server may serve, and the bucket below `reports/`.

A report appears whole: in a folder by renaming, in the bucket because its `index.html` comes last. What exists is what
is listed; `index.json` only remembers how each day was.
"""

from __future__ import annotations

import json
import mimetypes
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from opslib.errors import OpsError
from opslib.report import render
from opslib.storage import Storage
from opslib.storage_errors import MissingObjectError

PREFIX = "reports/"
PLACE = re.compile(r"\d{4}/(\d\d/\d\d|W\d\d)")
"""Of a report below a root: `2026/11/19`, `2026/W47`. Nothing else is ever removed."""
KEEP_AT_LEAST = 7
TYPES = {".ndjson": "application/x-ndjson", ".csv": "text/csv; charset=utf-8", ".html": "text/html; charset=utf-8"}

Entry = Mapping[str, Any]


def expired(places: Collection[str], keep_days: int, keep_weeks: int) -> list[str]:
    """Which reports go: of days and of weeks the newest so many stay, whatever the clock says.

    Args:
        places: All there are.
        keep_days: Reports of days that stay; `KEEP_AT_LEAST` do in any case.
        keep_weeks: Of weeks.
    """
    days = sorted((place for place in places if "/W" not in place), reverse=True)
    weeks = sorted((place for place in places if "/W" in place), reverse=True)
    return days[max(keep_days, KEEP_AT_LEAST) :] + weeks[max(keep_weeks, KEEP_AT_LEAST) :]


class Root(ABC):
    """A place that holds reports."""

    name: ClassVar[str]

    @abstractmethod
    def places(self) -> set[str]:
        """Reports there are."""

    @abstractmethod
    def put(self, place: str, files: render.Files) -> None:
        """Make a report appear, or take the place of the one before."""

    @abstractmethod
    def remove(self, place: str) -> None:
        """Take a report away."""

    @abstractmethod
    def get(self, name: str) -> bytes | None:
        """A file at the top."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a file at the top."""

    def publish(self, place: str, entry: Entry, files: render.Files, *, keep_days: int, keep_weeks: int) -> list[str]:
        """Put a report, remove what is too old, write the calendar; what was removed.

        Args:
            place: `2026/11/19` or `2026/W47`.
            entry: Its level and verdict.
            files: By name.
            keep_days: See `expired`.
            keep_weeks: See `expired`.

        Raises:
            OpsError: It could not be written, or is too much.
        """
        self.put(place, files)
        gone = expired(self.places(), keep_days, keep_weeks)
        for each in gone:
            self.remove(each)
        known = self._known()
        there = self.places()
        unknown = {"level": "unknown", "verdict": ""}
        index = {each: known.get(each, unknown) for each in there} | {place: entry}
        for name, content in sorted(render.calendar(index).items(), reverse=True):
            self.write(name, content)
        return gone

    def _known(self) -> dict[str, Entry]:
        try:
            found = json.loads(self.get("index.json") or b"{}")
        except ValueError:
            return {}  # it is written anew; days of before are of unknown level
        return found if isinstance(found, dict) else {}


class Folder(Root):
    """A directory.

    Args:
        path: It is made where it is not there.
    """

    name = "folder"

    def __init__(self, path: Path) -> None:
        self.path = path

    def places(self) -> set[str]:
        """Reports there are."""
        found = (path.parent.relative_to(self.path).as_posix() for path in self.path.glob("[0-9]*/**/index.html"))
        return {place for place in found if PLACE.fullmatch(place)}

    def put(self, place: str, files: render.Files) -> None:
        """Write beside, then rename.

        Raises:
            OpsError: It cannot be written.
        """
        target = self.path / place
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".part-", dir=target.parent) as part:
                new, old = Path(part, "new"), Path(part, "old")
                new.mkdir()
                for name, content in files.items():
                    (new / name).write_bytes(content)
                if target.exists():
                    target.rename(old)
                new.rename(target)
        except OSError as exc:
            raise OpsError(f"cannot write {target}: {exc.strerror}; mend that, or name another folder") from exc

    def remove(self, place: str) -> None:
        """Take it away."""
        if PLACE.fullmatch(place):
            shutil.rmtree(self.path / place, ignore_errors=True)

    def get(self, name: str) -> bytes | None:
        """A file at the top."""
        path = self.path / name
        return path.read_bytes() if path.exists() else None

    def write(self, name: str, content: bytes) -> None:
        """Whole or not at all."""
        part = self.path / f".{name}.part"
        part.write_bytes(content)
        part.replace(self.path / name)


class Bucket(Root):
    """The bucket, below `reports/`.

    Args:
        storage: It.
    """

    name = "bucket"

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def places(self) -> set[str]:
        """Reports whose `index.html` is there: others were never finished."""
        names = (one.key.removeprefix(PREFIX) for one in self._storage.list(PREFIX))
        found = (name.removesuffix("/index.html") for name in names if name.endswith("/index.html"))
        return {place for place in found if PLACE.fullmatch(place)}

    def put(self, place: str, files: render.Files) -> None:
        """Every file, its `index.html` last; then whatever an earlier one had beside.

        Raises:
            StorageError: It could not be written; the report of before may be there in part.
        """
        for name in sorted(files, key=lambda name: (name == "index.html", name)):
            self._storage.put(f"{PREFIX}{place}/{name}", files[name], content_type=_type(name))
        stale = [o.key for o in self._storage.list(f"{PREFIX}{place}/") if o.key.rpartition("/")[2] not in files]
        self._storage.delete_many(stale)

    def remove(self, place: str) -> None:
        """Its `index.html` first: what is left of it, if anything, nobody finds.

        Raises:
            StorageError: Some of it may still be there.
        """
        if PLACE.fullmatch(place):
            self._storage.delete(f"{PREFIX}{place}/index.html")
            self._storage.delete_many([one.key for one in self._storage.list(f"{PREFIX}{place}/")])

    def get(self, name: str) -> bytes | None:
        """A file at the top."""
        try:
            return self._storage.get(PREFIX + name)
        except MissingObjectError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write it."""
        self._storage.put(PREFIX + name, content, content_type=_type(name))


def _type(name: str) -> str:
    suffix = Path(name).suffix
    return TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
