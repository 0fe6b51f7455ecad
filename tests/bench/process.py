"""What a process has cost so far, from /proc: CPU to the nanosecond, memory as resident."""

from __future__ import annotations

import contextlib
from pathlib import Path


def cpu_ms(pid: int) -> float:
    """CPU of all its threads so far, in ms."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that ended meanwhile
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e6


def rss_mb(pid: int) -> float:
    """Resident memory in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)
