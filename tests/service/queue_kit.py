"""What the tests of queues share: real BullMQ in Node, and an exporter whose page is read as Prometheus reads it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from redis.exceptions import RedisError

from demo.processes import Account, Server, free_port
from demo.reaper import Reaper
from demo.redis import RedisServer
from exporters.queues import Queues
from opslib.server import Exporter

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "node" / "bullmq.mjs"
VERSIONS = ("5.63.0", "latest")
FRESH = 24 * 3600  # seconds until "latest" is asked for again
WAIT = 60.0


def install(version: str) -> Path:
    """The folder that holds bullmq of that version, installed from npm when it is not there yet."""
    # From version 6 the Redis client is the user's to bring.
    return installed(f"bullmq-{version}", f"bullmq@{version}", "ioredis@5", newest=version == "latest")


def installed(name: str, *packages: str, newest: bool = False) -> Path:
    """The folder of that name that holds these npm packages; `newest`: they are asked for again every day."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.fail(f"these tests drive real Node packages and need {tool}: `apt-get install nodejs npm`")
    folder = ROOT / ".cache" / "node" / name
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / ".installed"
    with (folder / ".lock").open("w") as lock:  # two runs at once must not install into one folder
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists() and (not newest or time.time() - done.stat().st_mtime < FRESH):
            return folder
        npm = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(folder)]
        answer = subprocess.run([*npm, *packages], capture_output=True, text=True, check=False, timeout=110)
        if answer.returncode == 0:
            done.touch()
        elif not done.exists():
            pytest.fail(f"npm cannot install {packages}: {answer.stderr[-500:]}")
    return folder


@dataclass(frozen=True, slots=True)
class Bullmq:
    """Real BullMQ on one Redis.

    Attributes:
        folder: Where it is installed.
        url: The Redis, on a unix socket.
    """

    folder: Path
    url: str

    async def play(self, scene: str, **arguments: Any) -> Any:
        """Play a scene of `bullmq.mjs` to its end, and return the truth it tells."""
        async with self.playing(scene, **arguments) as truth:
            return await truth()

    @contextlib.asynccontextmanager
    async def playing(self, scene: str, **arguments: Any) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
        """Play a scene beside the block; call what it yields for the truth."""
        socket = unquote(urlsplit(self.url).path)
        process = await asyncio.create_subprocess_exec(
            "node", str(SCRIPT), str(self.folder), socket, scene, json.dumps(arguments),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        Reaper.shared().watch(process.pid)
        assert process.stdout
        assert process.stderr
        stdout, stderr = process.stdout, process.stderr

        async def truth() -> Any:
            async with asyncio.timeout(200):
                line = await stdout.readline()
                if not line:
                    pytest.fail(f"scene {scene}: {(await stderr.read()).decode()[-2000:]}")
                return json.loads(line)

        try:
            yield truth
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            # communicate() closes the pipes too; a transport left open is a warning, and a warning an error.
            await process.communicate()
            Reaper.shared().forget(process.pid)


Labels = frozenset[tuple[str, str]]


class Page:
    """One page, parsed by the reference parser.

    Args:
        text: The exposition.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.values: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                series = self.values.setdefault(sample.name, {})
                labels = frozenset(sample.labels.items())
                assert labels not in series, f"twice on one page: {sample}"
                series[labels] = sample.value

    def get(self, metric: str, /, **labels: str) -> float | None:
        """One value, or None if it is absent."""
        return self.values.get(metric, {}).get(frozenset(labels.items()))

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Values other than 0 by these labels, in this order."""
        series = self.values.get(name, {})
        return {tuple(dict(key)[label] for label in labels): value for key, value in series.items() if value}

    def total(self, name: str) -> float:
        """The sum over all series."""
        return sum(self.values.get(name, {}).values())

    @property
    def up(self) -> bool:
        """Did Redis answer?"""
        return self.get("ops_collector_up", collector="queues") == 1


class Running:
    """A running exporter.

    Args:
        collector: Its one collector.
        exporter: The page around it.
    """

    def __init__(self, collector: Queues, exporter: Exporter) -> None:
        self.collector = collector
        self._exporter = exporter

    async def page(self) -> Page:
        """A scrape."""
        return Page((await self._exporter.page(openmetrics=False)).decode())

    async def ready(self) -> Page:
        """The page once every queue is known and read to its end."""
        return await self.until(lambda page: page.up and self.collector.ready())

    async def until(self, condition: Callable[[Page], object], seconds: float = WAIT) -> Page:
        """Scrape until `condition` holds."""
        deadline = time.monotonic() + seconds
        while not condition(page := await self.page()):
            if time.monotonic() > deadline:
                told = [line for line in page.text.splitlines() if line.startswith(("bitloot", "ops_"))]
                some = "\n".join(line for line in told if not line.endswith(" 0"))
                pytest.fail(f"not within {seconds} s; the page, zeros apart:\n{some[:5000]}")
            await asyncio.sleep(0.05)
        return page


@contextlib.asynccontextmanager
async def running(
    url: str, *, dsn: str | None = None, prefix: str = "bull", stop: bool = True
) -> AsyncIterator[Running]:
    """An exporter of queues while the block runs.

    Args:
        url: The Redis.
        dsn: The ops database, if there is one.
        prefix: BullMQ's key prefix.
        stop: End it properly; else drop it as kill -9 would: nothing is saved on the way out.
    """
    collector = Queues(url, prefix=prefix, checkpoint_name="queues/test", dsn=dsn)
    exporter = Exporter([collector])
    await exporter.start()
    try:
        yield Running(collector, exporter)
    finally:
        if not stop:
            collector.checkpoint.loaded = False  # stop() saves only what is loaded
        await exporter.stop()


@contextlib.contextmanager
def sentinel(directory: Path, binary: Path, master: RedisServer) -> Iterator[int]:
    """A sentinel that watches `master` as `mymaster`; its port."""
    port = free_port()
    config = directory / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 3000\n"
    )

    def ready() -> bool:
        with contextlib.suppress(RedisError), Redis(port=port, decode_responses=True) as client:
            # It must have heard of the replica, or there is nobody to fail over to.
            return int(client.execute_command("SENTINEL", "MASTER", "mymaster")["num-slaves"]) == 1
        return False

    argv = [str(binary), str(config), "--sentinel"]
    with Server("sentinel", argv, log=directory / "sentinel.log", ready=ready, account=Account.ours()):
        yield port


class Seeded:
    """A queue written by hand as BullMQ leaves it, for what real BullMQ is too polite or too slow to do.

    Args:
        redis: A client.
        raw: The queue's name.
        prefix: BullMQ's key prefix.
    """

    def __init__(self, redis: Redis, raw: bytes, prefix: bytes = b"bull") -> None:
        self._redis = redis
        self._base = prefix + b":" + raw + b":"
        redis.hset(self.key(b"meta"), mapping={"opts.maxLenEvents": 10000, "version": "bullmq:5.63.0"})

    def key(self, part: bytes) -> bytes:
        """The key of one of its structures."""
        return self._base + part

    def run(self, *jobs: tuple[str, bytes], trim: int | None = None) -> None:
        """Write the events of jobs (id, name) that were added, ran and completed; keep `trim` entries, if given."""
        pipeline = self._redis.pipeline(transaction=False)
        for job, name in jobs:
            for event in (
                {"event": "added", "jobId": job, "name": name},
                {"event": "waiting", "jobId": job},
                {"event": "active", "jobId": job, "prev": "waiting"},
                {"event": "completed", "jobId": job, "returnvalue": "null", "prev": "active"},
            ):
                pipeline.xadd(self.key(b"events"), event)  # type: ignore[arg-type]
        if trim is not None:
            pipeline.xtrim(self.key(b"events"), maxlen=trim, approximate=False)
        pipeline.execute()

    def wait(self, job: str, **fields: Any) -> None:
        """Put a job in `wait`."""
        self._redis.hset(self.key(job.encode()), mapping={"name": "n", "opts": "{}", "data": "{}", **fields})
        self._redis.lpush(self.key(b"wait"), job)


def completed(page: Page, queue: str) -> float:
    """Jobs of a queue counted as completed."""
    return sum(value for (name, result), value in _jobs(page) if (name, result) == (queue, "completed"))


def _jobs(page: Page) -> list[tuple[tuple[str, str], float]]:
    series = page.values.get("bitloot_queue_jobs_total", {})
    return [((dict(key)["queue"], dict(key)["result"]), value) for key, value in series.items()]
