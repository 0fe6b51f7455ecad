"""Text that stands on page after page, compressed once.

A page is made of pieces. Most of them are the same as at the last scrape: what is compressed of them is kept, so that a
scrape compresses only what changed. Each piece becomes a part of the deflate stream that looks back at no other (it
ends in a full flush); put one after another they are one ordinary gzip member, which every client reads. Members of
their own would be simpler, but some clients stop after the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from struct import Struct

from isal import isal_zlib

SMALL = 2048  # bytes
LEVEL = 1  # isal's level 1 is as small as gzip -6 on text, at a tenth of the CPU
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # RFC 1952: deflate, no name, no time
_LAST_BLOCK = b"\x03\x00"  # RFC 1951: an empty last block
_TRAILER = Struct("<II")


class Piece:
    """A part of a page.

    Args:
        text: It.
    """

    __slots__ = ("_packed", "body")

    def __init__(self, text: str | bytes) -> None:
        self.body = text.encode() if isinstance(text, str) else text
        self._packed: bytes | None = None

    def packed(self) -> bytes:
        """It as a part of a deflate stream."""
        if self._packed is None:
            deflate = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, -isal_zlib.MAX_WBITS)
            self._packed = deflate.compress(self.body) + deflate.flush(isal_zlib.Z_FULL_FLUSH)
        return self._packed


def plain(pieces: Iterable[Piece]) -> bytes:
    """The page as it is."""
    return b"".join([piece.body for piece in pieces])


def gzipped(pieces: Iterable[Piece]) -> bytes:
    """The page as one gzip member."""
    parts, size, crc = [_HEADER], 0, 0
    for piece in _sizeable(pieces):
        parts.append(piece.packed())
        size += len(piece.body)
        crc = isal_zlib.crc32(piece.body, crc)
    return b"".join([*parts, _LAST_BLOCK, _TRAILER.pack(crc, size & 0xFFFFFFFF)])


def _sizeable(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Small ones side by side made one: apart they would be hardly smaller than they are."""
    for small, neighbours in groupby(pieces, lambda piece: len(piece.body) < SMALL):
        together = list(neighbours)
        if small and len(together) > 1:
            yield Piece(b"".join([piece.body for piece in together]))
        else:
            yield from together
