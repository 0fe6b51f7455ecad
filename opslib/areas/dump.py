"""A database as one gzip stream: pg_dump's output, its rows counted and compressed as it goes by, nothing on disk.

The work is spread so that no part waits for another: the server writes, pg_dump copies, this thread reads and counts,
two more compress. The result is one ordinary gzip member: each block is deflated by itself, ends on a whole byte (a
full flush) and refers to nothing before it, so that put one after another they are one stream.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from struct import Struct
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import Self

from isal import isal_zlib

from opslib.areas.pg_tools import Tools
from opslib.errors import JobError
from opslib.redact import redact

BLOCK_BYTES = 1024 * 1024
"""Read, counted and compressed at a time. Smaller ones cost ratio, larger ones memory."""
PAUSE = 0.0005
"""Seconds: what pg_dump writes in them, in pieces of 4 kB, is read at once instead of piece by piece."""
THREADS = 2
LEVEL = 1  # isal's level 1 is as small as gzip -6 on rows, at a tenth of the CPU
LOCK_WAIT = "60s"
"""How long pg_dump waits for a table somebody alters; everybody else would queue up behind it."""
STOP_SECONDS = 10
WIDE_BYTES = 256
"""A row of this many bytes or more is found sooner by cutting the block into lines than by looking at every byte."""

Table = tuple[str, str]
"""Schema and name, as they are (not quoted)."""


class RowCounter:
    r"""Counts each table's rows in a plain dump that is fed to it piece by piece.

    A row is a line of COPY data: line breaks inside values are escaped. Data ends with a line `\\.` and two empty ones.
    """

    _END = b"\n\\.\n\n\n"
    _END_LINE = b"\\.\n"
    _HEAD = b"\n-- Data for Name: "
    _COPY = re.compile(
        rb"\n-- Data for Name: [^\n]*\n--\n\n(?:"
        rb'COPY (?P<schema>"(?:[^"]|"")+"|[^".\s]+)\.(?P<name>"(?:[^"]|"")+"|[^".\s]+) .*?FROM stdin;(?=\n)'
        rb"|(?!COPY )[^\n]{5})",  # large objects, say
        re.DOTALL,
    )
    _PATIENCE = 65_536  # bytes; a head followed by something else after all (in a function's body) is not waited for
    _COMPLETE = b"\n-- PostgreSQL database dump complete\n"

    def __init__(self) -> None:
        self._rows: dict[Table, int] = {}
        self._table: Table | None = None
        self._rest = b"\n"
        self._last = b""
        self._wide = False  # were the rows of the last block?

    @property
    def tables(self) -> Mapping[Table, int]:
        """Rows of each table whose data began."""
        return MappingProxyType(self._rows)

    @property
    def complete(self) -> bool:
        """Did the last bytes say that this is all?"""
        return self._table is None and self._COMPLETE in self._last

    def feed(self, block: bytes) -> None:
        """Go on with the next bytes, however they are cut."""
        self._last = (self._last + block[-512:])[-512:]
        if self._table is not None and self._goes_on(self._table, block):
            return
        data, at = self._rest + block, 0
        before = None
        while before != (at, self._table):
            before = (at, self._table)
            at = self._in_sql(data, at) if self._table is None else self._in_data(data, at)
        self._rest = data[at:]

    def _goes_on(self, table: Table, block: bytes) -> bool:
        """The common case: does all of this block belong to the table? Then it is counted."""
        held = len(self._END) - 1
        if len(block) < held or (self._rest + block[:held]).find(self._END) >= 0:
            return False
        breaks = self._breaks(block)
        if breaks is None:
            return False
        self._rows[table] += self._rest.count(b"\n") + breaks - block.count(b"\n", len(block) - held)
        self._rest = block[-held:]
        return True

    def _breaks(self, block: bytes) -> int | None:
        """Line breaks in it; None if data may end in it.

        Every byte of a database goes through here, so the quickest of what Python has is taken: memchr from line to
        line, unless rows are so short that making the lines costs more. rfind is three times as fast as find on rows.
        """
        if self._wide:
            lines = BytesIO(block).readlines()
            if self._END_LINE in lines:
                return None
            breaks = len(lines) - (not block.endswith(b"\n"))
        elif block.rfind(self._END) >= 0:
            return None
        else:
            breaks = block.count(b"\n")
        self._wide = breaks * WIDE_BYTES < len(block)
        return breaks

    def _in_data(self, data: bytes, at: int) -> int:
        assert self._table is not None  # noqa: S101 - asked before
        end = data.find(self._END, at)
        upto = end if end >= 0 else max(at, len(data) - len(self._END) + 1)
        self._rows[self._table] += data.count(b"\n", at, upto)
        if end >= 0:
            self._table = None
            return end + len(self._END) - 1  # the last line break may begin the next head
        return upto

    def _in_sql(self, data: bytes, at: int) -> int:
        head = data.find(self._HEAD, at)
        if head < 0:
            return max(at, len(data) - len(self._HEAD) + 1)
        match = self._COPY.match(data, head)
        if match is None:
            return head if len(data) - head < self._PATIENCE else head + 1
        if match["name"]:
            self._table = (_plain(match["schema"]), _plain(match["name"]))
            self._rows[self._table] = 0
        return match.end()  # the line break behind COPY … is where data begins


def _plain(identifier: bytes) -> str:
    text = identifier.decode(errors="replace")
    return text[1:-1].replace('""', '"') if text.startswith('"') else text


class Dump:
    """pg_dump as a process whose output is read block by block; a context manager that leaves no process behind.

    Args:
        tools: Of the server's major.
        environment: See `pg_tools.environment`.
    """

    def __init__(self, tools: Tools, environment: Mapping[str, str]) -> None:
        command = [tools.program("pg_dump"), "--format=plain", "--no-password", f"--lock-wait-timeout={LOCK_WAIT}"]
        self._said = TemporaryFile()  # noqa: SIM115 - closed with the process; a pipe nobody reads would block it
        self._process = subprocess.Popen(  # noqa: S603 - ours, without a shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=dict(environment),
            bufsize=0,
        )
        assert self._process.stdout is not None  # noqa: S101 - asked for
        self._output = self._process.stdout
        self._roomy = False
        with contextlib.suppress(OSError):  # not every kernel allows it
            fcntl.fcntl(self._output, getattr(fcntl, "F_SETPIPE_SZ", 1031), BLOCK_BYTES)
            self._roomy = True

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def blocks(self) -> Iterator[bytes]:
        """Its output, up to its end.

        Raises:
            JobError: pg_dump did not exit with 0; what came before is not a dump.
        """
        while block := self._block():
            yield block
        if code := self._process.wait():
            raise JobError(f"pg_dump {_ended(code)}: {self._complaint()}")

    def _block(self) -> bytes:
        """The next block: a whole one, unless the output ends in it.

        Whoever reads what there is wakes up for every piece pg_dump writes, and is woken by it. Where the pipe has room
        for what comes meanwhile, a pause after a short piece costs no time and saves most of these turns.
        """
        pieces, missing = [], BLOCK_BYTES
        while missing and (piece := self._output.read(missing)):
            pieces.append(piece)
            missing -= len(piece)
            if missing and self._roomy and len(piece) < BLOCK_BYTES // 2:
                time.sleep(PAUSE)
        return b"".join(pieces)

    def __enter__(self) -> Self:
        """It runs already."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it if it still runs."""
        with contextlib.suppress(BrokenPipeError):
            self._output.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._said.close()

    def _complaint(self) -> str:
        self._said.seek(0)
        return complaint(self._said.read(65_536).decode(errors="replace"))


def _ended(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"exited with {code}"


def complaint(stderr: str) -> str:
    """The line that says why a program of PostgreSQL's failed: never DETAIL or CONTEXT, which quote rows."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"error|fatal|panic", line, re.IGNORECASE)]
    first = (errors or lines or ["it said nothing"])[0]
    return str(redact(first))[:500]


class Gzip:
    """Blocks compressed on several threads, in order, as one gzip member.

    Attributes:
        size: Bytes that went in.
    """

    _HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # RFC 1952: deflate, no name, no time
    _LAST_BLOCK = b"\x03\x00"  # RFC 1951: an empty last block
    _TRAILER = Struct("<II")

    def __init__(self) -> None:
        self.size = 0

    def compress(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """The compressed stream; what goes wrong with `blocks` goes through."""
        crc = 0
        waiting: deque[Future[bytes]] = deque()
        with ThreadPoolExecutor(THREADS, "gzip") as threads:
            yield self._HEADER
            for block in blocks:
                crc = isal_zlib.crc32(block, crc)
                self.size += len(block)
                waiting.append(threads.submit(_deflate, block))
                if len(waiting) > 2 * THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
            yield self._LAST_BLOCK + self._TRAILER.pack(crc, self.size & 0xFFFFFFFF)


def _deflate(block: bytes) -> bytes:
    deflate = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, -isal_zlib.MAX_WBITS)
    packed: bytes = deflate.compress(block) + deflate.flush(isal_zlib.Z_FULL_FLUSH)
    return packed
