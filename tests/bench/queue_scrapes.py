"""What a scrape of 5, 50 and 200 queues costs: ours, the floor and the peers, in one run."""

from __future__ import annotations

import contextlib
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis

from demo import postgres
from demo.processes import StartError, free_port, private_directory
from demo.redis import RedisServer, redis_server
from opslib.areas.timed_script import LIMIT
from opslib.contract import migrate
from tests.bench import queue_servers, redis_watch
from tests.bench.line import Line
from tests.bench.process import cpu_ms, rss_mb
from tests.bench.queue_seed import mover, seed
from tests.bench.scraper import Scraper, Scrapes
from tests.bench.table import show

SIZES = (5, 50, 200)
SECONDS = 6.0  # of scraping each
ROUNDS = 12  # of the duel: all in turn, because the machine drifts ...
TURN = 30  # ... so many scrapes each
MOST = 400  # scrapes of each
COUNTED = 5  # scrapes under MONITOR
SETTLE = 12.0  # seconds from start until an exporter has read what history there is
LARGE = SIZES[-1]
STANDING, MOVED = 700, 250  # scrapes whose commands are timed: thousands of scripts
FLOOR, CLOSEST = "floor: one Lua, own text", "BullMQ exportPrometheusMetrics"

# What the process of `opsctl exporter run queues` has imported once it serves.
IMPORTS = """
import time
import opsctl.cli, opsctl.commands.exporter, exporters.queues, opslib.server, hiredis
print("ready", flush=True)
time.sleep(60)
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One exporter at one size.

    Attributes:
        name: Whose.
        scrapes: Its scrapes.
        commands: Top-level Redis commands per scrape.
        connections: It holds.
        rss: MB.
        held: How long commands held Redis.
    """

    name: str
    scrapes: Scrapes
    commands: float
    connections: int
    rss: float
    held: redis_watch.Held

    def cells(self) -> tuple[str, ...]:
        """For the table."""
        s = self.scrapes
        return (
            self.name, f"{s.p50:.2f}", f"{s.p95:.2f}", f"{s.cpu:.2f}", f"{self.commands:.0f}", f"{self.connections}",
            f"{self.held.at(0.5):.2f}", f"{self.held.at(0.95):.2f}", f"{self.held.at(1):.2f}",
            f"{self.rss:.0f}", f"{s.size / 1000:.0f}",
        )  # fmt: skip


COLUMNS = (
    "", "p50 ms", "p95 ms", "CPU ms", "commands", "connections", "held p50 ms", "p95", "max", "RSS MB", "page kB",
)  # fmt: skip


def run() -> Iterator[Line]:
    """Print a table per size; the targets are those of the largest."""
    binary = shutil.which("redis-server", path="/usr/bin:/usr/local/bin")
    if binary is None:
        raise StartError("this bench needs Redis 7: apt-get install redis-server")
    with private_directory() as directory, postgres.postgres(directory) as database:
        migrate.up(database.dsn())
        for size in SIZES:
            with (
                private_directory() as folder,
                redis_server(folder, Path(binary), ["--appendonly", "no"]) as server,
                Redis(port=server.port) as redis,
            ):
                if not redis_watch.undisturbed(server.pid):
                    print("Redis runs as others do: whoever takes its core seems to hold it")  # noqa: T201 - the report
                names = seed(redis, size)
                with database.connect() as admin:
                    admin.execute("TRUNCATE ops.exporter_checkpoints, ops.exporter_series")
                measured = list(_all(server, redis, names, database.dsn()))
                show(f"{size} queues, {redis.dbsize():,} keys", COLUMNS, [m.cells() for m in measured])
                if size == LARGE:
                    yield from _holds(server, redis, names, database.dsn())
                    yield from _targets(measured, _duel(server, database.dsn()))


def _all(server: RedisServer, redis: Redis, names: list[str], dsn: str) -> Iterator[Measured]:
    with queue_servers.exporter(server, dsn) as (process, port):
        time.sleep(SETTLE if len(names) == LARGE else 3.0)
        idle(redis, process.pid)
        yield _measure("ours", redis, process.pid, port, ours=True)
        yield _measure("ours, gzip as Prometheus asks", redis, process.pid, port, ours=True, gzip=True)
        move = mover(redis, names)
        yield _measure(
            "ours, gzip, a job moved in every queue", redis, process.pid, port, ours=True, gzip=True, move=move
        )
    for name, start in queue_servers.PEERS.items():
        port = free_port()
        try:
            peer = start(server, len(names), port)
        except queue_servers.MissingError as exc:
            print(f"{name}: not measured; {exc}")  # noqa: T201 - the report
            continue
        with peer:
            yield _measure(name, redis, peer.pid, port)


def _measure(
    name: str,
    redis: Redis,
    pid: int,
    port: int,
    *,
    ours: bool = False,
    gzip: bool = False,
    move: Callable[[], None] | None = None,
) -> Measured:
    scraper = Scraper(port, gzip=gzip)
    with redis_watch.held(redis, but="EVALSHA" if move else "") as held:
        scrapes = scraper.measure(pid, seconds=SECONDS, most=MOST, before_each=move)
    connections = redis_watch.connections(redis)
    before = redis_watch.scripts(redis)
    with contextlib.nullcontext() if ours else redis_watch.commands(redis) as commands:
        for _ in range(COUNTED):
            if move:
                move()
            scraper.page()
    scraper.close()
    asked = redis_watch.scripts(redis) - before if commands is None else commands.of("")
    return Measured(name, scrapes, asked / COUNTED, connections, rss_mb(pid), held)


def _holds(server: RedisServer, redis: Redis, names: list[str], dsn: str) -> Iterator[Line]:
    """How long ours holds the server, in turn with a loop as long that reads nothing: is it us, or the machine?"""
    with queue_servers.exporter(server, dsn) as (_, port):
        time.sleep(SETTLE)
        scraper = Scraper(port, gzip=True)
        loop = redis_watch.loop(redis, LIMIT / 1000)
        for title, rounds, move in (("standing", STANDING, None), ("moved", MOVED, mover(redis, names))):
            scraper.page()
            before = redis_watch.scripts(redis)
            with redis_watch.held(redis, but="EVALSHA") as held:
                for _ in range(rounds):
                    if move:
                        move()
                    scraper.page()
                    for _ in range(10 if move else 5):
                        loop()
            each = (redis_watch.scripts(redis) - before) / rounds
            rows = [
                (
                    name,
                    f"{len(times):,}",
                    *(f"{times[int((len(times) - 1) * q)]:.2f}" for q in (0.5, 0.95, 0.99, 0.999, 1)),
                )
                for verb, name in KINDS.items()
                if (times := held.longest.get(verb))
            ]
            columns = ("ms, of those above 0.1", "", "p50", "p95", "p99", "p99.9", "max")
            show(f"{LARGE} queues, {title}: {each:.1f} scripts a scrape; Redis held", columns, rows)
            ours = [time for verb in KINDS if verb != "EVAL" for time in held.longest.get(verb, ())]
            yield Line(f"a command holds Redis, {title}, p99.9 of {len(ours):,}", _at(ours, 0.999), "target", 0.5, 1)
            yield Line("the same, longest", max(ours), "target", 0.5, 1)
        scraper.close()


KINDS = {
    "EVALSHA_RO": "scripts of a scrape",
    "XREAD": "reading events",
    "SCAN": "looking for queues",
    "EVAL": "a loop that reads nothing",
}


def _at(times: list[float], quantile: float) -> float:
    return sorted(times)[int((len(times) - 1) * quantile)]


@dataclass(slots=True)
class Side:
    """One side of the duel.

    Attributes:
        scraper: Of its page.
        pid: Its process.
        times: Of each scrape, ms.
        cpu: Per scrape, ms, one for each round.
    """

    scraper: Scraper
    pid: int
    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def turn(self) -> None:
        """Some scrapes."""
        self.scraper.page()
        before = cpu_ms(self.pid)
        for _ in range(TURN):
            started = time.perf_counter()
            self.scraper.page()
            self.times.append((time.perf_counter() - started) * 1000)
        self.cpu.append((cpu_ms(self.pid) - before) / TURN)

    @property
    def p50(self) -> float:
        """Median of all scrapes, ms."""
        return statistics.median(self.times)


def _duel(server: RedisServer, dsn: str) -> dict[str, Side]:
    """Ours, the floor and the closest peer in turn, again and again."""
    with contextlib.ExitStack() as stack:
        process, port = stack.enter_context(queue_servers.exporter(server, dsn))
        sides = {"ours": Side(Scraper(port), process.pid), "ours, gzip": Side(Scraper(port, gzip=True), process.pid)}
        for name in (FLOOR, CLOSEST):
            port = free_port()
            peer = stack.enter_context(queue_servers.PEERS[name](server, LARGE, port))
            sides[name] = Side(Scraper(port), peer.pid)
        time.sleep(SETTLE)
        for _ in range(ROUNDS):
            for side in sides.values():
                side.turn()
    columns = ("in turn", "p50 ms", "p95 ms", "CPU ms")
    rows = [
        (name, f"{s.p50:.2f}", f"{statistics.quantiles(s.times, n=20)[18]:.2f}", f"{statistics.median(s.cpu):.2f}")
        for name, s in sides.items()
    ]
    show(f"{LARGE} queues, in turn", columns, rows)
    return sides


def idle(redis: Redis, pid: int) -> None:
    """Print what ours costs while nobody scrapes: following the streams, and looking for new queues."""
    seconds = 5.0
    with redis_watch.held(redis) as held, redis_watch.commands(redis) as commands:
        before = cpu_ms(pid)
        time.sleep(seconds)
        cpu = (cpu_ms(pid) - before) / seconds
    rates = {f"{name[14:]} {verb}": round(count / seconds, 1) for (name, verb), count in commands.seen.items()}
    print(f"between scrapes: {cpu:.1f} ms CPU a second; commands a second: {rates}; held {held.longest_by()}")  # noqa: T201


def import_baseline() -> float:
    """RSS in MB of a process that has imported what ours imports, and done nothing."""
    with subprocess.Popen([sys.executable, "-c", IMPORTS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        rss = rss_mb(process.pid)
        process.kill()
    return rss


def _targets(measured: list[Measured], duel: Mapping[str, Side]) -> Iterator[Line]:
    ours, gzip, _, *peers = measured
    floor = duel[FLOOR]
    yield Line("scrape of 200 queues, p50", duel["ours"].p50, "the floor", floor.p50, 2)
    yield Line("the same, gzip", duel["ours, gzip"].p50, "the floor", floor.p50, 2)
    for name in ("ours", "ours, gzip"):
        yield Line(f"CPU per scrape, {name}", statistics.median(duel[name].cpu), "target", 2, 1)
    yield Line("commands per scrape", ours.commands, "target", 12, 1, unit="")
    yield Line("connections", ours.connections, "target", 3, 1, unit="")
    yield Line("RSS above the imports", ours.rss - import_baseline(), "target", 25, 1, unit=" MB")
    yield Line("scrape of 200 queues, p50", duel["ours, gzip"].p50, CLOSEST, duel[CLOSEST].p50, 1)
    for peer in peers:
        if peer.name not in (FLOOR, CLOSEST):
            yield Line("scrape of 200 queues, p50", gzip.scrapes.p50, peer.name, peer.scrapes.p50, 0.25)
