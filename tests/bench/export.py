"""`opsctl export orders` of a million orders against psql copying the same columns in the same order."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from demo.postgres import postgres
from demo.processes import private_directory
from tests.bench import sql_seed
from tests.bench.line import Line

ROWS = 1_000_000
ROUNDS = 5
RSS_MB = 80
COLUMNS = """order_id, email_masked, status, total_eur, created_at, source_type, user_id, reservation_id,
    completion_email_sent, updated_at""".replace("order_id", "id AS order_id").replace("\n", " ")
PSQL = f"\\copy (SELECT {COLUMNS} FROM ops_view.orders ORDER BY created_at_utc, id) TO '{{}}' WITH (FORMAT csv, HEADER)"
LISTS = ("orders", "payments", "webhooks", "reservations", "users", "sessions", "app-audit")


def run() -> Iterator[Line]:
    """Median of alternating runs, each a process from its start to its end, after one of each to warm the caches."""
    with private_directory() as directory, postgres(directory) as server:
        dsn = sql_seed.shop(server, "shop", webhooks=1000, orders=ROWS)
        settings = {"PATH": os.environ["PATH"], "DATABASE_URL": dsn}
        opsctl = str(Path(sys.executable).parent / "opsctl")
        psql = [str(server.binaries / "psql"), dsn, "-qc", PSQL.format(directory / "psql.csv")]
        ways = {
            "psql": psql,
            "csv": [opsctl, "export", "orders", "-o", str(directory / "a.csv")],
            "csv, gzip": [opsctl, "export", "orders", "--gzip", "-o", str(directory / "a.csv.gz")],
            "ndjson": [opsctl, "export", "orders", "--format", "ndjson", "-o", str(directory / "a.ndjson")],
        }
        peaks: list[float] = []
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(ROUNDS + 1):
            for way, command in ways.items():
                took, peak = _timed(command, settings)
                if number:
                    seconds[way].append(took)
                if way != "psql":
                    peaks.append(peak)
        theirs = statistics.median(seconds.pop("psql"))
        for way, took in seconds.items():
            # The bound is the CSV's: the same work. Half the speed is twice the time.
            bound = 2 if way == "csv" else 4
            yield Line(f"export of {ROWS:,} orders, {way}", statistics.median(took), r"psql \copy", theirs, bound, " s")
        yield Line("its memory at most", max(peaks), "target", RSS_MB, bound=1, unit=" MB")
        for name in LISTS:
            took = [_timed([opsctl, name, "list", "--limit", "100"], settings)[0] * 1000 for _ in range(ROUNDS + 1)][1:]
            yield Line(f"opsctl {name} list", statistics.median(took), "target", 400, bound=1)


def _timed(command: list[str], settings: Mapping[str, str]) -> tuple[float, float]:
    """Seconds from its start to its end, and the most memory it ever held, in MB."""
    started, peak = time.perf_counter(), 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(settings)) as process:
        while process.poll() is None:
            # Not getrusage: a child inherits the peak of the process that forked it.
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        peak = max(peak, int(line.split()[1]) / 1024)
            time.sleep(0.005)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - started, peak
