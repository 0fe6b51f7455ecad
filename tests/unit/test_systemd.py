"""What a service tells systemd, over a real datagram socket."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path

import pytest

from opslib import systemd


async def test_a_service_tells_its_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ready, alive twice within the period, leaving; and again the same the next time."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.setblocking(False)  # noqa: FBT003 - the socket's own signature
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        for _ in range(2):
            began, said = time.monotonic(), []
            async with systemd.running(), asyncio.timeout(60):
                while len(said) < 5:
                    await asyncio.sleep(0.02)
                    said += heard(listener)
            lived = time.monotonic() - began
            said += heard(listener)
            assert (said[0], said[-1]) == ("READY=1", "STOPPING=1")
            assert set(said[1:-1]) == {"WATCHDOG=1"}
            assert 4 <= len(said[1:-1]) <= lived / 0.05 + 1
        monkeypatch.setenv("WATCHDOG_PID", "1")  # somebody else's
        async with systemd.running():
            await asyncio.sleep(0.1)
        assert heard(listener) == ["READY=1", "STOPPING=1"]


async def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without systemd, or with a socket nobody reads, a service runs all the same."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    for address in ("", str(tmp_path / "gone"), "@no-such-name"):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        async with systemd.running():
            await asyncio.sleep(0)


def heard(listener: socket.socket) -> list[str]:
    """What has arrived."""
    said = []
    while True:
        try:
            said.append(listener.recv(100).decode())
        except BlockingIOError:
            return said
