"""Are jobs counted that BullMQ removes at once, all of them, and at what price?"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from demo import postgres
from demo.processes import Server, private_directory
from demo.redis import RedisServer, redis_server
from opslib.contract import migrate
from tests.bench import queue_servers, redis_watch
from tests.bench.event_producer import FOUND, Truth, produce
from tests.bench.line import Line
from tests.bench.process import cpu_ms, rss_mb
from tests.bench.scraper import Scraper
from tests.bench.table import show
from tests.service import queue_kit

EVENTS_A_JOB = 4
KILLS = 20
ARRIVES = 30.0  # seconds the last count may take to reach the page
WARM = 0.2  # share of a run after which memory is to stay as it is

COLUMNS = (
    "", "jobs", "jobs/s", "counted", "events lost", "series wrong", "mean duration off by", "CPU ms/s", "CPU µs/event",
    "RSS MB, at 20 %", "at the end", "XREAD max ms",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Counted:
    """One run.

    Attributes:
        truth: What was produced.
        page: What the page showed at the end.
        cpu: Of the exporter, ms.
        rss: MB after the warm-up and at the end.
        held: The longest our reading of the streams held the server, ms.
    """

    truth: Truth
    page: queue_kit.Page
    cpu: float
    rss: tuple[float, float]
    held: float

    @property
    def share(self) -> float:
        """Jobs counted, in percent."""
        return 100 * self.page.total("bitloot_queue_jobs_total") / self.truth.ended

    @property
    def wrong(self) -> int:
        """Series (queue, result, name) that are not exactly right."""
        shown = self.page.by("bitloot_queue_jobs_total", "queue", "result", "name")
        return sum(shown.get(key, 0) != self.truth.jobs.get(key, 0) for key in {*shown, *self.truth.jobs})

    @property
    def off(self) -> float:
        """Difference of the mean duration from the workers' own, ms."""
        measured = self.page.total("bitloot_job_duration_seconds_count")
        mean = self.page.total("bitloot_job_duration_seconds_sum") / measured if measured else 0.0
        return 1000 * (mean - self.truth.seconds / self.truth.ended)

    def cells(self, name: str) -> tuple[str, ...]:
        """For the table."""
        jobs, seconds = self.truth.ended, self.truth.took
        return (
            name, f"{jobs:,}", f"{jobs / seconds:,.0f}", f"{self.share:.2f} %",
            f"{self.page.total('bitloot_queue_events_lost_total'):.0f}", f"{self.wrong}", f"{self.off:+.3f} ms",
            f"{self.cpu / seconds:.0f}", f"{1000 * self.cpu / jobs / EVENTS_A_JOB:.1f}",
            f"{self.rss[0]:.1f}", f"{self.rss[1]:.1f}", f"{self.held:.2f}",
        )  # fmt: skip


RUNS: dict[str, Callable[[RedisServer, Redis], Truth]] = {
    "real BullMQ 5.63.0 workers, 3 queues": lambda server, _: _crowd(server, jobs=9000, seconds=15),
    "its events, 3 queues": lambda _, redis: produce(redis, queues=3, jobs=9000, rate=600),
    "its events, 8 queues": lambda _, redis: produce(redis, queues=8, jobs=252_000, rate=10_000),
    "its events, 1 queue": lambda _, redis: produce(redis, queues=1, jobs=60_000, rate=10_000),
}


def run() -> Iterator[Line]:
    """Print a table; every count must be right."""
    rows = []
    with private_directory() as directory, postgres.postgres(directory) as database:
        migrate.up(database.dsn())

        def clear() -> None:
            with database.connect() as admin:
                admin.execute("TRUNCATE ops.exporter_checkpoints, ops.exporter_series")

        for name, play in RUNS.items():
            clear()
            counted = _count(play, database.dsn())
            rows.append(counted.cells(name))
            yield Line(f"{name}: share counted", 200 - counted.share, "all", 100, 1, unit=" %")
            yield Line(f"{name}: mean duration off", abs(counted.off), "target", 0.2, 1)
            if counted.truth.ended * EVENTS_A_JOB > 1_000_000:
                yield Line("RSS over 1 M events", counted.rss[1], "after a fifth", counted.rss[0], 1.05, unit=" MB")
        show("Events", COLUMNS, rows)
        yield from _kills(database.dsn(), clear)


@contextlib.contextmanager
def own_redis() -> Iterator[tuple[RedisServer, Redis]]:
    """A server of one run's own, and a client."""
    binary = shutil.which("redis-server", path="/usr/bin:/usr/local/bin")
    assert binary, "this bench needs Redis 7: apt-get install redis-server"
    with (
        private_directory() as folder,
        redis_server(folder, Path(binary), ["--appendonly", "no"]) as server,
        Redis(port=server.port) as redis,
    ):
        yield server, redis


def _count(play: Callable[[RedisServer, Redis], Truth], dsn: str) -> Counted:
    with own_redis() as (server, redis), queue_servers.exporter(server, dsn) as (process, port):
        before = cpu_ms(process.pid)
        with beside(process.pid, port) as memory, redis_watch.held(redis) as held:
            truth = play(server, redis)
        page = arrived(port, truth)
        cpu = cpu_ms(process.pid) - before
        longest = held.longest_by().get("XREAD", 0.0)
        return Counted(truth, page, cpu, (memory[int(len(memory) * WARM)], rss_mb(process.pid)), longest)


@dataclass(frozen=True, slots=True)
class Killed:
    """A run in which the exporter is killed again and again.

    Attributes:
        queues: To spread the jobs over.
        rate: Jobs a second.
        length: Of a stream, in events.
    """

    queues: int
    rate: float
    length: int

    def play(self, dsn: str) -> Counted:
        """Kill -9 at any moment and start again, `KILLS` times, while jobs flow."""
        over = threading.Event()
        with (
            own_redis() as (server, redis),
            queue_servers.exporter(server, dsn) as (process, port),
            ThreadPoolExecutor(1) as pool,
        ):
            flow = pool.submit(produce, redis, queues=self.queues, rate=self.rate, length=self.length, over=over)
            try:
                time.sleep(FOUND + 1)
                self._kill(process, port)
            finally:
                over.set()
            truth = flow.result(60)
            return Counted(truth, arrived(port, truth), 0.0, (0.0, 0.0), 0.0)

    @staticmethod
    def _kill(process: Server, port: int) -> None:
        chance, last = random.Random(7), 0.0
        for _ in range(KILLS):
            time.sleep(chance.uniform(0, 1.2))  # a save is due every second: before it, after it, in the middle of it
            scraper = Scraper(port)
            page = queue_kit.Page(scraper.page().decode())
            scraper.close()
            ended = page.total("bitloot_queue_jobs_total")
            assert ended >= last or "bitloot_queue_jobs_total" not in page.values, "a counter stepped back"
            last = max(last, ended)
            process.kill()
            process.start()


KILLED = {
    "600/s": Killed(queues=3, rate=600, length=10_000),
    "10,000/s, streams of 100,000": Killed(queues=8, rate=10_000, length=100_000),
    "10,000/s in one queue, stream of 10,000": Killed(queues=1, rate=10_000, length=10_000),
}
TRIMMED = "10,000/s in one queue, stream of 10,000"  # a quarter of a second long: a start takes longer


def _kills(dsn: str, clear: Callable[[], None]) -> Iterator[Line]:
    rows = []
    for name, run_ in KILLED.items():
        clear()
        counted = run_.play(dsn)
        jobs, lost = counted.truth.ended, counted.page.total("bitloot_queue_events_lost_total")
        lost_share = 100 * lost / (EVENTS_A_JOB * jobs)
        gaps = counted.page.total("bitloot_queue_event_gaps_total")
        rows.append(
            (
                name, f"{jobs:,}", f"{jobs / counted.truth.took:,.0f}", f"{counted.share:.2f} %", f"{lost_share:.2f} %",
                f"{gaps:.0f}", f"{counted.wrong}", f"{counted.off:+.3f} ms",
            )
        )  # fmt: skip
        if name == TRIMMED:
            said = abs(100 - counted.share - lost_share)
            yield Line(f"{name}: not counted, and not said to be lost", said, "target", 5, 1, unit=" %")
        else:
            yield Line(f"20 kills, {name}: share counted", 200 - counted.share, "all", 100, 1, unit=" %")
            yield Line(f"20 kills, {name}: series wrong", counted.wrong, "any", 1, 0, unit="")
            yield Line(f"20 kills, {name}: mean duration off", abs(counted.off), "target", 0.2, 1)
    columns = (
        "20 kills -9",
        "jobs",
        "jobs/s",
        "counted",
        "events said lost",
        "gaps",
        "series wrong",
        "duration off by",
    )
    show("Events, the exporter killed 20 times", columns, rows)


@contextlib.contextmanager
def beside(pid: int, port: int) -> Iterator[list[float]]:
    """Scrape once a second while the block runs, as two Prometheus would, and note the memory."""
    memory: list[float] = []
    over = threading.Event()

    def watch() -> None:
        scraper = Scraper(port, gzip=True)
        while not over.wait(1.0):
            scraper.page()
            memory.append(rss_mb(pid))
        scraper.close()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield memory
    finally:
        over.set()
        thread.join()


def arrived(port: int, truth: Truth) -> queue_kit.Page:
    """The page once it shows as many jobs as there were, or when it has had its time."""
    scraper = Scraper(port)
    ends = time.monotonic() + ARRIVES
    while True:
        page = queue_kit.Page(scraper.page().decode())
        if page.total("bitloot_queue_jobs_total") >= truth.ended or time.monotonic() > ends:
            scraper.close()
            return page
        time.sleep(0.25)


def _crowd(server: RedisServer, *, jobs: int, seconds: float) -> Truth:
    """Jobs of real workers: prioritized, delayed, retried, failing for good, all mixed."""
    folder = queue_kit.install("5.63.0")
    told = json.dumps({"jobs": jobs, "seconds": seconds, "secret": "none"})
    began = time.time()
    answer = subprocess.run(
        ["node", str(queue_kit.SCRIPT), str(folder), str(server.socket), "crowd", told],
        capture_output=True, text=True, check=True, timeout=180,
    )  # fmt: skip
    said = json.loads(answer.stdout)
    jobs_by = Counter({tuple(json.loads(key)): count for key, count in said["jobs"].items()})
    return Truth(jobs_by, said["seconds"], time.time() - began)
