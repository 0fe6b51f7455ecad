"""age encryption of a stream on its way, by pyrage, which pulls and pushes: so it runs on a thread between two ends."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from opslib.errors import ConfigError, JobError

CHUNKS = 8
"""Pieces waiting between the thread and its reader: memory, and nothing else, grows with it."""


class _Reader:
    """A file to read from, over an iterator of bytes."""

    def __init__(self, chunks: Iterable[bytes], stopped: threading.Event) -> None:
        self._chunks = iter(chunks)
        self._stopped = stopped
        self._rest = b""

    def read(self, size: int) -> bytes:
        if self._stopped.is_set():
            raise BrokenPipeError("nobody wants the rest")
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


class _Writer:
    """A file to write to, whose other end is a queue."""

    def __init__(self, out: queue.Queue[Any], stopped: threading.Event) -> None:
        self._out = out
        self._stopped = stopped

    def write(self, data: bytes) -> int:
        _offer(self._out, bytes(data), self._stopped)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


def _offer(out: queue.Queue[Any], item: Any, stopped: threading.Event) -> None:
    while not stopped.is_set():
        try:
            return out.put(item, timeout=0.5)
        except queue.Full:
            continue
    raise BrokenPipeError("nobody wants the rest")


class _Work(Protocol):
    def __call__(self, reader: _Reader, writer: _Writer) -> object: ...


def _through(chunks: Iterable[bytes], work: _Work) -> Iterator[bytes]:
    """Run `work` between `chunks` and whoever iterates. What goes wrong on either side is raised here."""
    out: queue.Queue[bytes | BaseException | None] = queue.Queue(CHUNKS)
    stopped = threading.Event()
    source_error: list[BaseException] = []

    def watched() -> Iterator[bytes]:
        try:
            yield from chunks
        except BaseException as exc:  # pyrage would turn it into text
            source_error.append(exc)
            raise

    def run() -> None:
        end: BaseException | None = None
        try:
            work(_Reader(watched(), stopped), _Writer(out, stopped))
        except BaseException as exc:  # noqa: BLE001 - carried to the other thread and raised there
            end = source_error[0] if source_error else exc
        if not stopped.is_set():
            _offer(out, end, stopped)

    thread = threading.Thread(target=run, name="age", daemon=True)
    thread.start()
    try:
        while isinstance(item := out.get(), bytes):
            yield item
        if item is not None:
            raise item
    finally:
        stopped.set()
        thread.join()


def recipients(text: str) -> list[Any]:
    """The recipients a setting lists.

    Raises:
        ConfigError: One is no age recipient.
    """
    import pyrage  # noqa: PLC0415 - only for who encrypts

    try:
        return [pyrage.x25519.Recipient.from_str(one.strip()) for one in text.split(",") if one.strip()]
    except pyrage.RecipientError as exc:
        raise ConfigError("BACKUP_AGE_RECIPIENTS: write age1… recipients, comma-separated (`age-keygen -y`)") from exc


def encrypt(chunks: Iterable[bytes], to: list[Any]) -> Iterator[bytes]:
    """The stream encrypted to these recipients."""
    import pyrage  # noqa: PLC0415 - only for who encrypts

    return _through(_coarse(chunks), lambda reader, writer: pyrage.encrypt_io(reader, writer, to))


def decrypt(chunks: Iterable[bytes], identity: str) -> Iterator[bytes]:
    """The stream as it was.

    Raises:
        ConfigError: That is no identity.
        JobError: It is not encrypted to this identity, or was altered.
    """
    import pyrage  # noqa: PLC0415 - only for who encrypts

    try:
        key = pyrage.x25519.Identity.from_str(identity)
    except pyrage.IdentityError as exc:
        raise ConfigError("BACKUP_AGE_IDENTITY: write the AGE-SECRET-KEY-1… line of the key file") from exc
    try:
        yield from _coarse(_through(chunks, lambda reader, writer: pyrage.decrypt_io(reader, writer, [key])))
    except (pyrage.DecryptError, OSError) as exc:
        raise JobError(
            "it cannot be decrypted: it was encrypted to other recipients than BACKUP_AGE_IDENTITY, or was altered"
        ) from exc


def _coarse(chunks: Iterable[bytes], size: int = 256 * 1024) -> Iterator[bytes]:
    """The same bytes in fewer pieces."""
    held, length = [], 0
    for chunk in chunks:
        held.append(chunk)
        length += len(chunk)
        if length >= size:
            yield b"".join(held)
            held, length = [], 0
    if held:
        yield b"".join(held)
