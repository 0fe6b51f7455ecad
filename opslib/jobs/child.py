"""The attempt's own process, in a session and process group of its own: runs the job, tells its parent how it goes.

It ends itself when nobody waits for it any more: the parent is gone, or has been out of touch for so long that the
attempt may have been given to somebody else. So no two processes work on one run, whoever froze, died or was cut off.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError

from opslib import log, redact
from opslib.errors import CancelledError, JobError, OpsError
from opslib.run import Progress, Run
from opslib.settings import Settings
from opslib.spec import Job

_SIZE = struct.Struct("!I")
_PROGRESS_SECONDS = 1.0
_MOST = 1_000_000
"""Characters of a result; more belongs into a file or the bucket."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the parent sends first.

    Attributes:
        target: The job, as "module:JOB".
        run: The run's number.
        job: The job's name.
        params: As they were queued.
        slot: When it was due.
        attempt: From 1.
        triggered_by: Who asked.
        settings: Every setting.
        beat: Seconds between signs of life.
        lease: On the monotonic clock, which all processes share: until then the attempt is ours.
    """

    target: str
    run: int
    job: str
    params: Mapping[str, Any]
    slot: datetime | None
    attempt: int
    triggered_by: str
    settings: Settings
    beat: float
    lease: float

    def packed(self) -> bytes:
        """As it travels over the socket pair: secrets are in it, so never by argv or a file."""
        content = pickle.dumps(self)
        return _SIZE.pack(len(content)) + content


class TerminatedError(BaseException):
    """SIGTERM: no job's `except Exception` may swallow it, its `finally` blocks still run."""


class Link:
    """The line to the parent: signs of life and progress up, lease and cancellation down, in a thread of its own."""

    def __init__(self, channel: socket.socket, assignment: Assignment) -> None:
        self._cancelled = threading.Event()
        self._channel = channel
        self._lock = threading.Lock()
        self._beat = assignment.beat
        self._lease = assignment.lease
        self._progress: Progress | None = None
        self._thread = threading.Thread(target=self._serve, name="link", daemon=True)

    def start(self) -> None:
        """From now on."""
        self._thread.start()

    def report(self, progress: Progress) -> None:
        """Keep the latest; it travels once a second."""
        self._progress = progress

    def is_cancelled(self) -> bool:
        """Was it? Asked by a process that was frozen and lost its lease meanwhile, it does not return."""
        while self._over():
            time.sleep(0.02)  # a renewal may wait to be read; else the thread ends us
        return self._cancelled.is_set()

    def _over(self) -> bool:
        return time.monotonic() >= self._lease

    def end(self, **message: Any) -> NoReturn:
        """Say the last word, and wait until it was heard: the parent hangs up, which ends us."""
        self._flush()
        self._send({"end": message})
        self._thread.join()
        _die()

    def _serve(self) -> None:
        try:
            self._follow()
        finally:
            _die()  # whatever went wrong: nobody watches the lease any more

    def _follow(self) -> None:
        beat = flush = time.monotonic()
        rest = b""
        while True:
            now = time.monotonic()
            if now >= beat:
                self._send({"beat": True})
                beat = now + self._beat
            if now >= flush and self._flush():
                flush = now + _PROGRESS_SECONDS
            wait = max(0.0, min(_PROGRESS_SECONDS, beat - now, self._lease - now))
            if select.select([self._channel], [], [], wait)[0]:
                heard = self._channel.recv(65536)
                if not heard:
                    return  # the parent is gone: whoever takes the run over must find nobody here
                *lines, rest = (rest + heard).split(b"\n")
                for message in map(json.loads, lines):
                    self._lease = message.get("lease", self._lease)
                    if message.get("cancel"):
                        self._cancelled.set()
            elif self._over():
                self._send({"lost": True})
                return  # the parent is frozen, or cannot reach Postgres: others believe it dead

    def _flush(self) -> bool:
        progress, self._progress = self._progress, None
        if progress is not None:
            self._send({"progress": redact.redact(asdict(progress))})
        return progress is not None

    def _send(self, message: Mapping[str, Any]) -> None:
        with self._lock, contextlib.suppress(OSError):  # a parent that is gone is seen by the thread
            self._channel.sendall(json.dumps(message).encode() + b"\n")


def main(channel: socket.socket) -> NoReturn:
    """Run what the parent sends, and say how it ended; SIGTERM comes blocked."""
    signal.signal(signal.SIGTERM, _terminate)
    assignment = _receive(channel)
    redact.register(assignment.settings.secrets())
    log.configure(assignment.settings)
    link = Link(channel, assignment)
    link.start()
    ending = _run(assignment, link)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # too late: it is over
    sys.stdout.flush()
    sys.stderr.flush()
    link.end(**ending)


def execute(assignment: Assignment, link: Link) -> Any:
    """The job itself; its result as JSON takes it.

    Raises:
        JobError: The parameters are not the job's, or the result cannot be kept.
    """
    module, _, name = assignment.target.partition(":")
    loaded = import_module(module)
    job: Job = getattr(loaded, name)
    assignment.settings.require(*job.needs)
    try:
        params = job.params.model_validate(assignment.params)
    except ValidationError as exc:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors(include_input=False))
        raise JobError(
            f"the parameters are not those of {job.name} ({wrong}); see `opsctl jobs show {job.name}`"
        ) from exc
    run = Run(
        id=assignment.run,
        job=assignment.job,
        settings=assignment.settings,
        slot=assignment.slot,
        attempt=assignment.attempt,
        triggered_by=assignment.triggered_by,
        report=link.report,
        is_cancelled=link.is_cancelled,
    )
    run.check_cancelled()  # frozen on its way here until somebody else had the run, it does not begin
    result: BaseModel | None = loaded.run(run, params)
    if result is None:
        return None
    shown = redact.redact(result.model_dump(mode="json"))
    if len(json.dumps(shown)) > _MOST:
        raise JobError(f"the result of {job.name} has more than {_MOST} characters: keep it elsewhere, return where")
    return shown


def _run(assignment: Assignment, link: Link) -> dict[str, Any]:
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        return {"outcome": "SUCCESS", "result": execute(assignment, link)}
    except CancelledError as exc:
        return {"outcome": "CANCELLED", "error": redact.redact(str(exc))}
    except TerminatedError:
        return {"outcome": "FAILED", "error": "its process was told to end (SIGTERM)", "terminated": True}
    except BaseException as exc:  # noqa: BLE001 - whatever a job raises is how it ended
        message = str(exc) if isinstance(exc, OpsError) else f"{type(exc).__name__}: {exc}"
        return {"outcome": "FAILED", "error": redact.redact(message), "trace": list(_frames(exc))}


def _frames(exc: BaseException) -> Iterator[str]:
    """Where it happened, without the text of any line or value."""
    for frame in traceback.extract_tb(exc.__traceback__):
        yield f"{frame.filename}:{frame.lineno} in {frame.name}"


def _receive(channel: socket.socket) -> Assignment:
    with channel.makefile("rb", buffering=0) as stream:
        (size,) = _SIZE.unpack(_exactly(stream, _SIZE.size))
        assignment: Assignment = pickle.loads(_exactly(stream, size))  # noqa: S301 - from our own parent, over a socket pair
    return assignment


def _exactly(stream: Any, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = stream.read(size - len(content))
        if not part:
            _die()
        content += part
    return content


def _terminate(_: int, __: FrameType | None) -> NoReturn:
    raise TerminatedError


def _die() -> NoReturn:
    os.killpg(0, signal.SIGKILL)  # the whole group: whatever the job started dies with it
    os._exit(1)
