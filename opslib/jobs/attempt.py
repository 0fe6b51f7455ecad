"""One attempt as the worker sees it: hears its process, ends it at its timeout, and knows how it went."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opslib.jobs.child import Assignment
from opslib.jobs.spawner import Child
from opslib.jobs.store import Taken
from opslib.jobs.timing import Timing


@dataclass(eq=False, slots=True)
class Seat:
    """Our place among the processes in the database. What was taken under it stands and falls with it.

    Attributes:
        number: Which.
        lease: On the monotonic clock: until then nobody takes from us what was taken under it.
        given_up: We were silent for too long: others have it, or will.
    """

    number: int
    lease: float
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt went.

    Attributes:
        outcome: SUCCESS, FAILED or CANCELLED.
        result: What the job returned.
        error: What to tell people.
        trace: Where an exception came from, a line per frame.
        timed_out: It was ended at its timeout.
        terminated: Somebody else told its process to end.
    """

    outcome: str
    result: Any = None
    error: str | None = None
    trace: tuple[str, ...] = ()
    timed_out: bool = False
    terminated: bool = False


class Attempt:
    """A child at work.

    Attributes:
        taken: What it works on.
        seat: What it was taken under.
        asked: It was told to stop.
        dropped: It is no longer ours: killed, and silent about it.
        lost: It was out of touch for so long that it ended itself.
    """

    def __init__(self, taken: Taken, seat: Seat, child: Child, timing: Timing) -> None:
        self.taken = taken
        self.seat = seat
        self.asked = False
        self.dropped = False
        self.lost = False
        self._child = child
        self._timing = timing
        self._lives = True
        self._progress: Mapping[str, Any] | None = None

    async def run(self, assignment: Assignment) -> Ending | None:
        """Let it work; None: it was dropped or lost before it had a result."""
        self._child.writer.write(assignment.packed())
        try:
            async with asyncio.timeout(self.taken.timeout_seconds):
                return await self._listen()
        except TimeoutError:
            # SIGTERM, so that it can tidy up, and say so; then SIGKILL.
            self._child.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timing.kill_grace):
                    await self._listen()
            after = f"it took longer than its timeout of {self.taken.timeout_seconds:g} s"
            return Ending("FAILED", error=after, timed_out=True)
        finally:
            self._child.close()

    def lives(self) -> bool:
        """Has its process said so since the last question?"""
        lived, self._lives = self._lives, False
        return lived

    def progress(self) -> Mapping[str, Any] | None:
        """How far it is, if that is news."""
        latest, self._progress = self._progress, None
        return latest

    def lease(self, until: float) -> None:
        """It is ours until then, on the monotonic clock."""
        self._child.send({"lease": until})

    def cancel(self) -> None:
        """Ask it to stop."""
        self.asked = True
        self._child.send({"cancel": True})

    def drop(self) -> None:
        """Somebody else has it: end it at once. What it had to say by now is still heard, to be refused and counted."""
        self.dropped = True
        self._child.signal(signal.SIGKILL)

    async def leave(self) -> None:
        """We leave, and it with us: end it decently. What it had to say by then counts."""
        self.dropped = True
        self._child.signal(signal.SIGTERM)
        await asyncio.wait({self._child.ended}, timeout=self._timing.kill_grace)
        self._child.signal(signal.SIGKILL)

    async def _listen(self) -> Ending | None:
        with contextlib.suppress(ConnectionError):  # it died with words of ours unread: an end like any other
            while line := await self._child.reader.readline():
                message = json.loads(line)
                if "end" in message:
                    end = message["end"]
                    return Ending(**{**end, "trace": tuple(end.get("trace", ()))})
                self.lost = "lost" in message
                self._lives = True
                self._progress = message.get("progress", self._progress)
        if self.dropped or self.lost:
            return None
        done, _ = await asyncio.wait({self._child.ended}, timeout=1)
        status = self._child.ended.result() if done and not self._child.ended.cancelled() else None
        return Ending("FAILED", error=f"its process {_died(status)} before it could say how it went")


def _died(status: int | None) -> str:
    if status is None:
        return "vanished"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"was killed by {signal.Signals(number).name}" + (
            " (out of memory?)" if number == signal.SIGKILL else ""
        )
    return f"exited with status {os.WEXITSTATUS(status)}"
