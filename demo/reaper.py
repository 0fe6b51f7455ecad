"""The undertaker: a small process that cleans up after us when we cannot do it ourselves.

Context managers end what they started, but not after a `kill -9` of the demo or of a test run. So what we start and
create is also told to this process over a pipe. When the pipe closes, for whatever reason, it kills what is still
listed (with all descendants) and removes the directories. In an ordinary end the list is empty by then.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

from demo.families import descendants


class Reaper:
    """Our side of the pipe. One per process, started on first use."""

    _instance: Self | None = None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "demo.reaper"],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=Path(__file__).parent.parent,
        )

    @classmethod
    def shared(cls) -> Self:
        """The reaper of this process."""
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    def watch(self, pid: int) -> None:
        """Kill `pid` and its descendants if we die before `forget(pid)`."""
        self._tell(f"+pid {pid}")

    def forget(self, pid: int) -> None:
        """`pid` has been waited for; its number may be somebody else's soon."""
        self._tell(f"-pid {pid}")

    @contextlib.contextmanager
    def directory(self, path: Path) -> Iterator[None]:
        """Remove `path` at the end of the block, or when we die."""
        self._tell(f"+dir {path}")
        try:
            yield
        finally:
            shutil.rmtree(path, ignore_errors=True)
            self._tell(f"-dir {path}")

    def close(self) -> None:
        """End the reaper itself; what is still listed goes with it."""
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            pipe.close()
        self._process.wait()
        type(self)._instance = None  # noqa: SLF001 - our own class

    def _tell(self, line: str) -> None:
        pipe = self._process.stdin
        if pipe is None:
            raise RuntimeError("the reaper has no pipe")
        with self._lock:
            pipe.write(line + "\n")
            pipe.flush()


def reap(lines: IO[str]) -> None:
    """Follow the list until the pipe closes, then end and remove what is on it."""
    listed: list[tuple[str, str]] = []
    for line in lines:
        kind, _, value = line.rstrip("\n").partition(" ")
        if kind.startswith("+"):
            listed.append((kind[1:], value))
        else:
            with contextlib.suppress(ValueError):
                listed.remove((kind[1:], value))
    for kind, value in reversed(listed):
        if kind == "pid":
            for pid in [int(value), *descendants(int(value))]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        else:
            shutil.rmtree(value, ignore_errors=True)


if __name__ == "__main__":
    for _signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(_signal, signal.SIG_IGN)  # it leaves when the pipe closes, not before
    reap(sys.stdin)
