"""Two Prometheus servers scrape one exporter that is killed again and again: neither ever sees a counter step back."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
from redis import Redis

from demo.processes import Account, Server, free_port, private_directory, wait_until
from tests.acceptance.exporter import Exporter
from tests.service.queue_kit import Seeded

KILLS = 5
COUNTERS = (
    *("bitloot_queue_jobs_total", "bitloot_queue_retries_total"),
    *(f"bitloot_job_{what}_seconds_{part}" for what in ("duration", "wait") for part in ("bucket", "count", "sum")),
)
JOBS = 'bitloot_queue_jobs_total{queue="q",result="completed"}'


class Prometheus(Server):
    """A Prometheus that scrapes one target five times a second."""

    def __init__(self, folder: Path, target: str) -> None:
        program = shutil.which("prometheus")
        assert program, "install prometheus"
        self.url = f"http://127.0.0.1:{free_port()}"
        config = folder / "prometheus.yml"
        job = {"job_name": "queues", "static_configs": [{"targets": [target]}]}
        config.write_text(json.dumps({"global": {"scrape_interval": "200ms"}, "scrape_configs": [job]}))  # YAML, too
        listen = self.url.removeprefix("http://")
        argv = [program, f"--config.file={config}", f"--storage.tsdb.path={folder}", f"--web.listen-address={listen}"]
        super().__init__("Prometheus", argv, log=folder / "log", ready=self._is_ready, account=Account.ours())

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/-/ready").is_success
        return False

    def ask(self, query: str) -> dict[str, float]:
        """The values of an instant query by series."""
        answer = httpx.get(f"{self.url}/api/v1/query?query={quote(query)}").raise_for_status().json()
        return {json.dumps(row["metric"]): float(row["value"][1]) for row in answer["data"]["result"]}


def test_no_reset_is_seen(redis: str, database: str, tmp_path: Path) -> None:
    """Kill -9 while jobs flow and two servers scrape: no reset of any counter, and in the end both have the truth."""
    settings = {"REDIS_URL": redis, "DATABASE_URL": database}
    exporter = Exporter("queues", log=tmp_path / "exporter.log", settings=settings).start()
    over, made = threading.Event(), 0

    def flow() -> None:
        nonlocal made
        with Redis.from_url(redis) as client:
            queue = Seeded(client, b"q")
            while not over.wait(0.05):
                queue.run(*((str(made + n), b"n") for n in range(20)))
                made += 20

    chance = random.Random(5)
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        folders = [stack.enter_context(private_directory()) for _ in range(2)]
        target = exporter.url.removeprefix("http://")
        both = [stack.enter_context(Prometheus(folder, target)) for folder in folders]
        flowing = pool.submit(flow)
        try:
            for _ in range(KILLS):
                time.sleep(chance.uniform(0.8, 2))
                exporter.kill()
                exporter.start()
        finally:
            over.set()
        flowing.result(60)
        with exporter:
            for server in both:
                wait_until(lambda server=server: list(server.ask(JOBS).values()) == [made], 60, "the truth", every=0.2)
                for counter in COUNTERS:
                    scraped = server.ask(f"count_over_time({counter}[5m])").values()
                    assert min(scraped, default=0) > 10, f"{counter} was hardly scraped"
                    assert server.ask(f"resets({counter}[5m]) > 0") == {}
                # A counter that lives with the process: a reset would be seen, unless its first second cost as much.
                assert max(server.ask("resets(process_cpu_seconds_total[5m])").values()) > 0
