"""`opsctl --help` against the least any click program costs."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.line import Line

ROUNDS = 15


def run() -> Iterator[Line]:
    """Median of alternating runs, after one of each to warm the caches."""
    opsctl = [str(Path(sys.executable).parent / "opsctl"), "--help"]
    bare = [sys.executable, "-c", "import click"]
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(ROUNDS + 1):
        for name, command in (("ours", opsctl), ("theirs", bare)):
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if number:
                times[name].append((time.perf_counter() - started) * 1000)
    yield Line(
        "opsctl --help", statistics.median(times["ours"]), "import click", statistics.median(times["theirs"]), bound=2.5
    )
