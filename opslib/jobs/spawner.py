"""The worker's side of the nursery: a child for each attempt, each with a channel and a process group of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

from opslib.errors import JobError

_PATIENCE = 30  # seconds the nursery may take to load everything, or to fork
_LINE = 16 << 20  # bytes; the longest a child may say at once


class Child:
    """One forked process, the leader of its own session.

    Attributes:
        pid: Its id, and its process group's.
        reader: What it says.
        writer: What it hears.
        ended: Its wait status, once it is gone.
    """

    def __init__(
        self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ended: asyncio.Future[int]
    ) -> None:
        self.pid = pid
        self.reader = reader
        self.writer = writer
        self.ended = ended

    def send(self, message: object) -> None:
        """Tell it; one that is gone hears nothing."""
        if not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")

    def signal(self, number: signal.Signals) -> None:
        """To it and whatever it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # gone
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                if not self.ended.done():  # just forked, and not yet a leader
                    os.kill(self.pid, number)

    def close(self) -> None:
        """End it if it still lives, with whatever it started."""
        self.signal(signal.SIGKILL)
        self.writer.close()


class Spawner:
    """Starts the nursery, and again should it be gone.

    Args:
        preload: Modules every child finds loaded.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._preload = list(preload)
        self._turn = asyncio.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._answer: asyncio.Future[int] | None = None
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._born: asyncio.Future[int] | None = None  # the end of the child started last, even if that came already

    async def spawn(self) -> Child:
        """A new child, waiting for its assignment.

        Raises:
            JobError: The machine has no process left for it.
        """
        async with self._turn:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)  # noqa: FBT003 - the library's signature
            try:
                with theirs:
                    control = await self._open()
                    socket.send_fds(control, [b"c"], [theirs.fileno()])
                    pid = await self._answered()
                    ended = self._born
            except (OSError, TimeoutError) as exc:
                ours.close()
                self.stop()
                raise JobError(f"no process could be started for it: {exc or 'no answer'}") from exc
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_LINE)
            assert ended is not None  # noqa: S101 - made before the answer was
            return Child(pid, reader, writer, ended)

    async def start(self) -> None:
        """Have it ready before the first attempt; if that fails, the attempts will say so."""
        async with self._turn:
            with contextlib.suppress(OSError, TimeoutError):
                await self._open()

    def stop(self) -> None:
        """Let it go; children that still live notice the end of their own channels."""
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self._control = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None
        for future in self._ended.values():
            future.cancel()
        self._ended.clear()

    async def _answered(self) -> int:
        self._answer = asyncio.get_running_loop().create_future()
        return await asyncio.wait_for(self._answer, _PATIENCE)

    async def _open(self) -> socket.socket:
        """The line to it; started, if it is not there."""
        if self._control is None:
            self._start()
            await self._answered()
        if self._control is None:
            raise OSError("the nursery left at once")
        return self._control

    def _start(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "opslib.jobs.nursery", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us: we tell the children
            )
        self._control.send(json.dumps({"path": sys.path, "preload": self._preload}).encode())
        self._control.setblocking(False)  # noqa: FBT003 - the library's signature
        asyncio.get_running_loop().add_reader(self._control, self._hear)

    def _hear(self) -> None:
        assert self._control is not None  # noqa: S101 - its reader is removed with it
        with contextlib.suppress(BlockingIOError):
            while packet := self._control.recv(4096):
                word, *rest = packet.decode().split(" ", 2)
                if word == "ended":
                    self._ended.pop(int(rest[0])).set_result(int(rest[1]))
                elif self._answer is not None and not self._answer.done():
                    if word == "ready":
                        self._answer.set_result(0)
                    elif word == "started":
                        self._born = self._ended[int(rest[0])] = asyncio.get_running_loop().create_future()
                        self._answer.set_result(int(rest[0]))
                    else:
                        self._answer.set_exception(OSError(" ".join(rest)))
            # It is gone; the next spawn starts another.
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(OSError("the nursery is gone"))
            self.stop()
