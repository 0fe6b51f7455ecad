"""The report of yesterday over a million orders and as many webhook calls: time, memory, and how large its page is.

The orders are 20 s apart, the calls 0.6 s: the day holds 4,320 and 144,000 of them, and so do the days it is compared
with. Every day is counted from its rows; none has final facts, as on a database that has just got ours.
"""

from __future__ import annotations

import gzip
import os
import statistics
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from demo.postgres import postgres
from demo.processes import private_directory
from demo.redis import redis_server
from tests.bench import export, sql_seed
from tests.bench.line import Line

ROWS = 1_000_000
ROUNDS = 3
SECONDS, RSS_MB, PAGE_KB = 5, 150, 250


def run() -> Iterator[Line]:
    """Each run is a process from its start to its end; the first one warms the caches."""
    with private_directory() as directory, postgres(directory) as server, redis_server(directory) as redis:
        dsn = sql_seed.shop(server, "shop", webhooks=ROWS, orders=ROWS)
        settings = {"PATH": os.environ["PATH"], "DATABASE_URL": dsn, "REDIS_URL": redis.url}
        yesterday = datetime.now(UTC).date() - timedelta(days=1)
        www = directory / "www"
        opsctl = str(Path(sys.executable).parent / "opsctl")
        command = [opsctl, "report", "build", "--day", str(yesterday), "-o", str(www)]
        runs = [export._timed(command, settings) for _ in range(ROUNDS + 1)]
        page = gzip.compress((www / f"{yesterday:%Y/%m/%d}" / "index.html").read_bytes())
        took = statistics.median(seconds for seconds, _ in runs[1:])
        yield Line(f"report of a day, {ROWS:,} orders, {ROWS:,} calls", took, "target", SECONDS, 1, " s")
        yield Line("the same, cold", runs[0][0], "target", SECONDS, 1, " s")
        yield Line("its memory at most", max(peak for _, peak in runs), "target", RSS_MB, 1, " MB")
        yield Line("its page, gzip'd", len(page) / 1024, "target", PAGE_KB, 1, " kB")
