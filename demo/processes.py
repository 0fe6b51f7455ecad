"""Child processes that never outlive us: start, freeze, thaw, kill, and wait until they are gone.

Every server of the demo and of the tests is a `Server`. It leads its own session, so a Ctrl-C typed at the terminal
reaches us first and we stop it in order. Postgres backends open sessions of their own, which is why freezing and
killing walk the tree of descendants instead of signalling a group.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from demo.families import descendants
from demo.reaper import Reaper

START_SECONDS = 60.0
"""How long a server may take to answer after its start, on a busy machine."""

STOP_SECONDS = 10.0
"""How long a server may take to leave after SIGTERM, before SIGKILL."""


class StartError(RuntimeError):
    """A server of the demo did not start; the message ends with its own last words."""


@dataclass(frozen=True, slots=True)
class Account:
    """The account a server runs under: ours, or nobody's when we are root and the server refuses root."""

    uid: int
    gid: int

    @classmethod
    def ours(cls) -> Self:
        """The account we run under."""
        return cls(os.geteuid(), os.getegid())

    @classmethod
    def unprivileged(cls) -> Self:
        """Us, or `nobody` when we are root. No account is ever created for this."""
        if os.geteuid():
            return cls.ours()
        nobody = pwd.getpwnam("nobody")
        return cls(nobody.pw_uid, nobody.pw_gid)

    @property
    def is_us(self) -> bool:
        """Whether no switch is needed."""
        return self.uid == os.geteuid()

    @property
    def switch_uid(self) -> int | None:
        """What `subprocess` takes as `user`; None when no switch is needed, as only root may switch at all."""
        return None if self.is_us else self.uid

    @property
    def switch_gid(self) -> int | None:
        """What `subprocess` takes as `group`."""
        return None if self.is_us else self.gid

    @property
    def switch_groups(self) -> list[int] | None:
        """What `subprocess` takes as `extra_groups`."""
        return None if self.is_us else []


def free_port() -> int:
    """A loopback TCP port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def private_directory(prefix: str = "ops-") -> Iterator[Path]:
    """A short temporary directory that is removed at exit, even when we are killed.

    Short, because a unix socket's path may hold 107 bytes; others may pass through it (not list it), because a
    Postgres we start as root runs as nobody.
    """
    path = Path(tempfile.mkdtemp(prefix=prefix))
    path.chmod(0o711)
    with Reaper.shared().directory(path):
        yield path


def wait_until(condition: Callable[[], object], seconds: float, what: str, *, every: float = 0.02) -> None:
    """Poll `condition` until it is true.

    Raises:
        TimeoutError: It was not true within `seconds`; the message says `what` was awaited.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(every)


class Server:
    """One server process on this machine.

    Args:
        name: For messages.
        argv: The command line.
        log: Where its output goes; quoted when it does not start.
        ready: Called until it returns true; may raise OSError or return false meanwhile.
        account: Who it runs as.
        stop_signal: What asks it to leave.
        env: Its environment; None is ours.
        cwd: Where it runs.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        ready: Callable[[], bool],
        account: Account,
        stop_signal: signal.Signals = signal.SIGTERM,
        env: dict[str, str] | None = None,
        cwd: Path = Path("/"),
    ) -> None:
        self.name = name
        self.argv = tuple(argv)
        self.log = log
        self._ready = ready
        self._account = account
        self._stop_signal = stop_signal
        self._env = env
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process id.

        Raises:
            RuntimeError: It is not running.
        """
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there; a frozen one is."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and return once it answers.

        Raises:
            StartError: It left, or did not answer in time.
        """
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self._cwd,
                env=self._env,
                user=self._account.switch_uid,
                group=self._account.switch_gid,
                extra_groups=self._account.switch_groups,
            )
        Reaper.shared().watch(self._process.pid)
        try:
            wait_until(self._answers, START_SECONDS, self.name)
        except TimeoutError as exc:
            self.kill()
            raise StartError(f"{self.name} did not start:\n{self.tail()}") from exc
        except BaseException:
            self.kill()
            raise

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise StartError(f"{self.name} left with status {self._process.returncode}:\n{self.tail()}")
        with contextlib.suppress(OSError):
            return self._ready()
        return False

    def tail(self, lines: int = 15) -> str:
        """The last lines it wrote."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def pause(self) -> None:
        """Freeze the server and all its children (SIGSTOP): connections stay open, nothing answers."""
        # The parent first, so that it cannot start a child we would miss.
        os.kill(self.pid, signal.SIGSTOP)
        for pid in descendants(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Thaw what `pause` froze."""
        for pid in [*descendants(self.pid), self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Frozen for the length of a `with` block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def kill(self) -> None:
        """SIGKILL, children included, and wait until none is left. Does nothing when it is not running."""
        if self._process is None:
            return
        family = [self._process.pid, *descendants(self._process.pid)] if self._process.poll() is None else []
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._gone(family)

    def stop(self) -> None:
        """Ask it to leave, insist after a while, and wait until no child is left."""
        if self._process is None:
            return
        if self._process.poll() is None:
            family = [self._process.pid, *descendants(self._process.pid)]
            self._process.send_signal(self._stop_signal)
            self.resume()  # a frozen process would not hear the signal
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self._gone(family)
        self._gone([])

    def _gone(self, family: Sequence[int]) -> None:
        wait_until(
            lambda: not any(_alive(pid) for pid in family),
            STOP_SECONDS,
            f"the children of {self.name} to leave",
        )
        if self._process is not None:
            Reaper.shared().forget(self._process.pid)
            self._process = None

    def restart(self) -> None:
        """Stop if running, then start again on the same directory and addresses."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _alive(pid: int) -> bool:
    """Whether `pid` is a process that still runs; a zombie whose parent has not looked yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
