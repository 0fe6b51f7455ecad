"""Jobs that behave, and jobs that do not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pydantic import BaseModel, SecretStr

from opslib.errors import JobError
from opslib.run import Run
from opslib.spec import Job


class Params(BaseModel):
    """What it shall do.

    Attributes:
        what: One of the words `run` knows.
        seconds: For how long.
        path: A file to write to.
        password: Something nobody may see.
    """

    what: str = "work"
    seconds: float = 0.0
    path: Path = Path("/dev/null")
    password: SecretStr | None = None


class Result(BaseModel):
    """What it found of itself."""

    pid: int
    group: int
    session: int
    argv: list[str]
    attempt: int


def job(name: str, **but: object) -> Job:
    """One of those below."""
    options: dict[str, object] = {"timeout": 100, "params": Params, "retry_after": 0.2, **but}
    return Job(name, name, None, **options)  # type: ignore[arg-type] # by name


ONCE = job("once")
SHORT = job("short", timeout=3)
THRICE = job("thrice", retries=2)
NARROW = job("narrow", queue="narrow")
LACKING = job("lacking", needs=("KINGUIN_API_KEY",))
JOBS = {each.name: f"{__name__}:{each.name.upper()}" for each in (ONCE, SHORT, THRICE, NARROW, LACKING)}


def run(run: Run, params: Params) -> Result | None:  # noqa: C901, PLR0912 - a list of misdeeds
    """Do what the parameters say."""
    match params.what:
        case "fail":
            raise JobError("it never works")
        case "crash":
            raise ValueError("hunter2-planted is wrong")
        case "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            sys.exit(0)
        case "recover":
            if run.attempt < 3:
                raise JobError(f"attempt {run.attempt} fails")
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with subprocess.Popen(["sleep", "600"]) as child:
                params.path.write_text(f"{os.getpid()} {child.pid}")
        case "tidy":
            params.path.write_text(str(os.getpid()))
            try:
                time.sleep(600)
            finally:
                params.path.write_text("tidied")
        case "mark":
            with params.path.open("a") as file:
                file.write(f"{run.attempt} {os.getpid()}\n")
        case "count":
            for n in range(round(params.seconds * 100)):
                run.progress(n, params.seconds * 100, unit="steps", note="with hunter2-planted")
                time.sleep(0.01)
    deadline = time.monotonic() + params.seconds
    while time.monotonic() < deadline:
        run.check_cancelled()
        time.sleep(0.02)
    return Result(pid=os.getpid(), group=os.getpgid(0), session=os.getsid(0), argv=_argv(), attempt=run.attempt)


def _argv() -> list[str]:
    return Path("/proc/self/cmdline").read_bytes().decode().split("\0")
