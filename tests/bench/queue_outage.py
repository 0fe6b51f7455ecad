"""Postgres hung while ten minutes of traffic go by: what is counted afterwards, and what waiting costs.

The traffic of ten minutes at 600 jobs a second is run at 10,000 a second, in half a minute; for the real ten minutes

    python -c "from tests.bench import queue_outage; queue_outage.play(600)"
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from demo import postgres
from demo.processes import private_directory
from opslib.contract import migrate
from tests.bench import queue_servers
from tests.bench.event_producer import produce
from tests.bench.line import Line
from tests.bench.process import rss_mb
from tests.bench.queue_events import Counted, arrived, beside, own_redis
from tests.bench.scraper import Scraper
from tests.bench.table import show
from tests.service import queue_kit

JOBS = 360_000
QUEUES = 8


def run() -> Iterator[Line]:
    """Every job is counted once the store is back."""
    counted = play(10_000)
    yield Line("Postgres away for 360,000 jobs: share counted", 200 - counted.share, "all", 100, 1, unit=" %")
    yield Line("the same: series wrong", counted.wrong, "any", 1, 0, unit="")


def play(rate: float) -> Counted:
    """Run the jobs, `rate` a second, while Postgres hangs; print what came of it."""
    with (
        private_directory() as directory,
        postgres.postgres(directory) as database,
        own_redis() as (server, redis),
    ):
        migrate.up(database.dsn())
        with queue_servers.exporter(server, database.dsn()) as (process, port):
            time.sleep(3)
            with database.paused():
                before = rss_mb(process.pid)
                with beside(process.pid, port) as memory:
                    truth = produce(redis, queues=QUEUES, jobs=JOBS, rate=rate)
                scraper = Scraper(port)
                page = queue_kit.Page(scraper.page().decode())
                scraper.close()
                assert page.up, "it was Postgres that was away"
                assert page.total("bitloot_queue_jobs_total") == 0, "shown before it was saved"
            back = time.monotonic()
            end = arrived(port, truth)
            counted = Counted(truth, end, 0.0, (before, max(memory)), 0.0)
            row = (
                f"{truth.ended:,}", f"{truth.took:.0f}", f"{page.total('ops_checkpoint_lag_seconds'):.0f}",
                f"{counted.share:.2f} %", f"{counted.wrong}", f"{time.monotonic() - back:.1f}",
                f"{before:.1f}", f"{max(memory):.1f}",
            )  # fmt: skip
    columns = ("jobs", "away s", "lag s", "counted", "series wrong", "all shown after s", "RSS MB before", "at most")
    show("Postgres away", columns, [row])
    return counted
