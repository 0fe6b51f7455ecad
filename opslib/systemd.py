"""What systemd wants to hear from a service of `Type=notify`: that it runs, that it still turns, that it is leaving."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[None]:
    """Say so while the block runs, and from the event loop twice within the unit's `WatchdogSec` that it still does."""
    notify("READY=1")
    turning = asyncio.create_task(_turning())
    try:
        yield
    finally:
        notify("STOPPING=1")
        turning.cancel()


def notify(state: str) -> None:
    """Send one line to `$NOTIFY_SOCKET`. A service must not fall because nobody listens to it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(1)
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        sender.send(state.encode())


async def _turning() -> None:
    """While this is sent the loop is alive; a loop that hangs is killed by systemd, and started anew."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(int(microseconds) / 2e6)
