"""Where a reader is in a stream, and whether it missed anything: pure arithmetic over what XINFO STREAM says.

BullMQ trims each stream to about 10,000 entries. Redis 7 counts every entry ever added, so entries trimmed before they
were read are known exactly: the first entry left has the number `entries-added - length`, and we know the number of the
last one counted. Redis 6 does not count; there a gap is seen, its size is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

Id = tuple[int, int]
START: Id = (0, 0)


def parse_id(text: bytes | str) -> Id:
    """Read `1700000000000-0`."""
    ms, _, sequence = (text.decode() if isinstance(text, bytes) else text).partition("-")
    return int(ms), int(sequence or 0)


def format_id(entry: Id) -> str:
    """Write it."""
    return f"{entry[0]}-{entry[1]}"


@dataclass(frozen=True, slots=True)
class Place:
    """Everything up to here is counted.

    Attributes:
        id: The last entry counted; `START` if none.
        added: Its number among all entries ever added; None where the server does not say.
        first: The first entry the stream held when last looked at: finding it again shows that it is still that stream.
    """

    id: Id = START
    added: int | None = None
    first: Id | None = None

    def to_json(self) -> list[Any]:
        """For the checkpoint."""
        return [format_id(self.id), self.added, None if self.first is None else format_id(self.first)]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> Place:
        """From the checkpoint."""
        entry, added, first = value
        return cls(parse_id(entry), added, None if first is None else parse_id(first))


@dataclass(frozen=True, slots=True)
class Stream:
    """What XINFO STREAM says.

    Attributes:
        length: Entries held.
        added: Entries ever added; None before Redis 7.
        first: The first entry held; None if there is none.
        last: The last id given out.
    """

    length: int
    added: int | None
    first: Id | None
    last: Id

    @classmethod
    def parse(cls, answer: Sequence[Any]) -> Stream:
        """Read the answer, keys and values in turn."""
        info = dict(zip(answer[::2], answer[1::2], strict=True))
        first = info[b"first-entry"]
        return cls(
            length=info[b"length"],
            added=info.get(b"entries-added"),
            first=parse_id(first[0]) if first else None,
            last=parse_id(info[b"last-generated-id"]),
        )

    @property
    def trimmed(self) -> int | None:
        """Entries ever added and no longer held."""
        return None if self.added is None else self.added - self.length


EMPTY = Stream(length=0, added=0, first=None, last=START)
"""A stream that does not exist (yet)."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries were gone before they were read.

    Attributes:
        lost: How many; None where nobody can say.
    """

    lost: int | None


def beginning(stream: Stream, *, born_later: bool) -> Place:
    """The place before the first entry held; of a queue born while we watched, before the first ever added."""
    return Place(START, 0 if born_later and stream.added is not None else stream.trimmed, stream.first)


def end(stream: Stream) -> Place:
    """The place behind the last entry."""
    return Place(stream.last, stream.added, stream.first)


def advance(place: Place, read: Sequence[bytes], stream: Stream) -> tuple[Place, Gap | None]:
    """The place behind the entries just read, and what was missed before them.

    Args:
        place: Before reading.
        read: The ids read, at least one.
        stream: The stream some moment after reading: what was trimmed in between is told apart.
    """
    last, first = parse_id(read[-1]), stream.first
    if first is not None and first <= place.id:
        counted = None if place.added is None else place.added + len(read)
        return Place(last, stream.added if stream.last == last else counted, first), None
    if stream.trimmed is None or place.added is None:
        return Place(last, None, first), None if place.id == START else Gap(None)
    read_and_gone = len(read) if first is None else sum(parse_id(entry) < first for entry in read)
    lost = stream.trimmed - place.added - read_and_gone
    # Fewer than none: it is another stream, begun anew since; what the old one still held is nobody's to know.
    gap = Gap(lost) if lost > 0 else Gap(None) if lost < 0 else None
    return Place(last, stream.trimmed + len(read) - read_and_gone, first), gap


def review(place: Place, stream: Stream) -> tuple[Place, Gap | None]:
    """The place in a stream that gave nothing to read: the same, unless the stream is no longer the one it was.

    Behind our place there may be a replica that took over a little late: its entries are all counted, and we go on at
    its end. Or a new stream, after the server was emptied or the queue obliterated: all of it is to be counted.
    """
    if stream.last >= place.id:
        added = stream.added if stream.last == place.id else place.added
        return replace(place, added=added, first=stream.first or place.first), None
    if stream.first is not None and stream.first == place.first:
        return end(stream), None
    return Place(START, 0 if stream.added is not None else None, stream.first), Gap(None)
