"""The demo as its user meets it: it starts, shows what moves, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.processes import descendants, wait_until

ROOT = Path(__file__).parents[2]


@contextmanager
def _demo(
    temporary: str, *arguments: str, ignoring: signal.Signals | None = None
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A demo whose every temporary file lies in `temporary`, and what it prints; `ignoring` as its shell left it."""
    printed = Path(temporary) / "printed"
    before = None if ignoring is None else signal.signal(ignoring, signal.SIG_IGN)
    with printed.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "demo", *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, "TMPDIR": temporary},
            start_new_session=True,
        )
    if ignoring is not None:
        signal.signal(ignoring, before)
    try:
        yield process, printed
    finally:
        process.kill()
        process.wait()


def _newcomer(printed: str) -> None:
    """In another terminal, with what the demo prints: `opsctl` reaches every server, and may act."""
    (file,) = re.findall(r"\. (\S+/opsctl\.sh)", printed)
    assert Path(file).stat().st_mode & 0o777 == 0o600
    retry = 'opsctl queues pause catalog --reason "to see" --yes && opsctl queues resume catalog --reason "seen"'
    for command in ("opsctl doctor", "opsctl operators whoami", "opsctl backups list", "opsctl audit verify", retry):
        said = subprocess.run(
            ["/bin/sh", "-c", f". {file}; {command}"],
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.returncode == 0, f"{command}: {said.stdout}{said.stderr}"


@pytest.mark.parametrize(
    ("goodbye", "ignoring"),
    [
        (signal.SIGINT, None),
        (signal.SIGTERM, None),
        (signal.SIGTERM, signal.SIGINT),  # `python -m demo &` in a script
        (signal.SIGKILL, None),
    ],
)
def test_nothing_is_left_behind(goodbye: signal.Signals, ignoring: signal.Signals | None) -> None:
    """After Ctrl-C, SIGTERM and even SIGKILL no process and no file of the demo remains."""
    with (
        tempfile.TemporaryDirectory(prefix="t-") as temporary,
        _demo(temporary, ignoring=ignoring) as (process, printed),
    ):
        Path(temporary).chmod(0o711)
        wait_until(
            lambda: "jobs " in printed.read_text() or process.poll() is not None, 150, "the first line of numbers"
        )
        assert process.poll() is None, printed.read_text()
        assert "/metrics" in printed.read_text()
        if goodbye is signal.SIGINT:
            _newcomer(printed.read_text())
        family = descendants(process.pid)
        assert len(family) > 8
        process.send_signal(goodbye)
        code = process.wait(60)
        assert code == (-signal.SIGKILL if goodbye is signal.SIGKILL else 0), printed.read_text()
        wait_until(lambda: not [pid for pid in family if Path(f"/proc/{pid}").exists()], 60, "the processes' end")
        wait_until(lambda: [path.name for path in Path(temporary).iterdir()] == ["printed"], 60, "the files' end")


@pytest.mark.timeout(430)
def test_the_check_finds_every_number_exact() -> None:
    """A short check agrees, and says how many series it compared."""
    with tempfile.TemporaryDirectory(prefix="t-") as temporary:
        Path(temporary).chmod(0o711)
        with _demo(temporary, "check", "--seconds", "10", "--seed", "7") as (process, printed):
            code = process.wait(400)
            assert code == 0, printed.read_text()
            assert "series compared, all exact" in printed.read_text()
