"""Secrets planted everywhere reach nothing that leaves: no log, page, error or Sentry event."""

from __future__ import annotations

import asyncio
import base64
import gzip
import http.server
import json
import os
import subprocess
import sys
import threading
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import httpx
import psycopg
import pytest
from bullmq import Queue, Worker
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from demo import app_schema
from demo.postgres import PostgresServer
from demo.redis import RedisServer
from opslib.contract import contract, migrate
from opslib.settings import FIELDS
from tests.acceptance.exporter import Exporter

PLANTED = {name: f"{name.lower()}{uuid.uuid4().hex}" for name in (
    "DATABASE", "REDIS", "NOWPAYMENTS", "KINGUIN", "APP_URL", "SENTRY", "TOKEN", "R2_ID", "R2_KEY", "ADMIN",
    "OPS", "PROMETHEUS", "REPLICA_ID", "REPLICA_KEY", "BACKUP", "RESTORE", "DRILL", "AGE", "ALERT", "HEARTBEAT",
    "ANSWER", "PAGE", "JOB", "FAILURE", "PAYLOAD", "RESULT", "ERROR",
)}  # fmt: skip
EMAIL = "customer.with.a.long.name@example.com"


class Evil(http.server.BaseHTTPRequestHandler):
    """Sentry, both providers and the application's /metrics: the last three answer with secrets, and wrongly."""

    events: ClassVar[list[bytes]] = []

    def do_GET(self) -> None:
        """A failure that quotes a secret, as real ones do."""
        secret = PLANTED["PAGE"] if self.path.startswith("/metrics") else PLANTED["ANSWER"]
        body = f'{{"balance": "{secret}", "for": "{EMAIL}" oops password={secret}'.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Request-Secret", secret)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Sentry's ingest."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = self.headers.get("Content-Encoding")
        self.events.append(gzip.decompress(body) if kind == "gzip" else zlib.decompress(body) if kind else body)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def evil() -> Iterator[str]:
    """Its address, host and port."""
    Evil.events.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def leaks(text: str) -> list[str]:
    """Which planted secrets, or encodings of them, are in `text`."""
    forms = {
        name: {secret, quote(secret), base64.b64encode(secret.encode()).decode()} for name, secret in PLANTED.items()
    }
    return [name for name, variants in forms.items() if any(form in text for form in variants)] + (
        ["EMAIL"] if EMAIL in text else []
    )


def settings(evil: str, database: str, redis: RedisServer) -> dict[str, str]:
    """Every secret setting, planted."""
    return {
        "DATABASE_URL": make_conninfo(database, password=PLANTED["DATABASE"]),
        "OPS_DATABASE_URL": make_conninfo(database, password=PLANTED["OPS"]),
        "REDIS_URL": f"redis://default:{PLANTED['REDIS']}@127.0.0.1:{redis.port}/0",
        "NOWPAYMENTS_API_KEY": PLANTED["NOWPAYMENTS"],
        "NOWPAYMENTS_BASE": f"http://{evil}",
        "KINGUIN_API_KEY": PLANTED["KINGUIN"],
        "KINGUIN_BASE_URL": f"http://{evil}",
        "APP_METRICS_URL": f"http://user:{PLANTED['APP_URL']}@{evil}/metrics",
        "APP_ADMIN_TOKEN": PLANTED["ADMIN"],
        "PROMETHEUS_URL": f"http://user:{PLANTED['PROMETHEUS']}@{evil}",
        "R2_ACCESS_KEY_ID": PLANTED["R2_ID"],
        "R2_SECRET_ACCESS_KEY": PLANTED["R2_KEY"],
        "REPLICA_ACCESS_KEY_ID": PLANTED["REPLICA_ID"],
        "REPLICA_SECRET_ACCESS_KEY": PLANTED["REPLICA_KEY"],
        "BACKUP_DATABASE_URL": make_conninfo(database, password=PLANTED["BACKUP"]),
        "RESTORE_DATABASE_URL": make_conninfo(database, password=PLANTED["RESTORE"]),
        "RESTORE_DRILL_DATABASE_URL": make_conninfo(database, password=PLANTED["DRILL"]),
        "BACKUP_AGE_IDENTITY": PLANTED["AGE"],
        "ALERT_WEBHOOK_URL": f"http://user:{PLANTED['ALERT']}@{evil}/alerts",
        "ALERT_HEARTBEAT_URL": f"http://user:{PLANTED['HEARTBEAT']}@{evil}/beat",
        "SENTRY_DSN": f"http://{PLANTED['SENTRY']}@{evil}/1",
        "OPS_METRICS_TOKEN": PLANTED["TOKEN"],
        "OPS_LEDGER_REFRESH_SECONDS": "1",
        "OPS_LEDGER_SETTLE_SECONDS": "1",
        "OPS_LEDGER_GAUGES_SECONDS": "1",
        "OPS_LOG_LEVEL": "debug",
    }


async def fill_queue(redis: RedisServer) -> None:
    """One job done and one that failed, both with secrets in data and failure text."""
    options = {"connection": redis.tcp_url}
    queue = Queue("fulfillment-queue", options)
    ended = asyncio.Event()

    async def process(job: object, _token: str) -> None:
        if getattr(job, "name", "") == "last":
            ended.set()
        raise RuntimeError(f"cannot deliver {PLANTED['FAILURE']} to {EMAIL}")

    for name in ("fetch-keys", "last"):
        await queue.add(name, {"key": PLANTED["JOB"], "email": EMAIL}, {"attempts": 1})
    worker = Worker("fulfillment-queue", process, options)
    async with asyncio.timeout(10):
        await ended.wait()
        while (await queue.getJobCounts("failed"))["failed"] < 2:  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.02)
    await worker.close()
    await queue.close()


def fill_database(database: str) -> None:
    """Payment notifications with secrets wherever text is kept."""
    with psycopg.connect(database, autocommit=True) as connection:
        for error in (f"Order not found for {EMAIL} {PLANTED['ERROR']}", "Invalid webhook signature"):
            connection.execute(
                """INSERT INTO webhook_logs
                   ("externalId", "webhookType", payload, signature, "signatureValid", processed, result, error)
                   VALUES (%s, 'nowpayments_ipn', %s, %s, %s, false, %s, %s)""",
                (
                    uuid.uuid4().hex,
                    Jsonb({"payment_status": PLANTED["PAYLOAD"], "email": EMAIL}),
                    PLANTED["PAYLOAD"],
                    error.startswith("Order"),
                    Jsonb({"error": error, "detail": PLANTED["RESULT"]}),
                    f"{error} {PLANTED['ERROR']}",
                ),
            )


def test_the_running_exporters_give_nothing_away(
    evil: str, own_postgres: PostgresServer, own_redis: RedisServer, tmp_path: Path
) -> None:
    """Working, failing, losing their servers, ending: page, log and Sentry hold none of it, and Sentry did hear."""
    database = own_postgres.dsn()
    app_schema.create(database)
    migrate.up(database)
    contract.apply(database)
    asyncio.run(fill_queue(own_redis))
    fill_database(database)
    given = settings(evil, database, own_redis)
    # A signing secret is given instead of a ready token, never beside it.
    assert {field.name for field in FIELDS if field.secret} - given.keys() == {"APP_JWT_SECRET", "APP_ADMIN_EMAIL"}
    exporter = Exporter(log=tmp_path / "log", settings=given)
    pages: list[str] = []

    def scrape() -> str:
        answer = httpx.get(f"{exporter.url}/metrics", headers={"Authorization": f"Bearer {PLANTED['TOKEN']}"})
        assert answer.status_code == 200
        pages.append(answer.text + str(answer.headers))
        return answer.text

    def until(text: str) -> None:
        for _ in range(150):
            if text in scrape():
                return
            threading.Event().wait(0.1)
        raise AssertionError(f"{text} never came:\n{scrape()}\n{exporter.log.read_text()}")

    with exporter:
        until('bitloot_queue_jobs_total{queue="fulfillment-queue",result="failed",name="fetch-keys"} 1')
        until('bitloot_webhook_total{provider="nowpayments",outcome="error"} 1')
        until('ops_collector_up{collector="app"} 0')
        own_postgres.kill()
        own_redis.kill()
        until('ops_collector_up{collector="queues"} 0')
        until('ops_collector_up{collector="ledger/webhook"} 0')
        refused = httpx.get(f"{exporter.url}/metrics", headers={"Authorization": "Bearer wrong"})
        pages.append(refused.text + str(refused.headers))
    log = exporter.log.read_text()
    events = b"\n".join(Evil.events).decode()
    assert leaks("\n".join(pages)) == []
    assert leaks(log) == []
    assert leaks(events) == []
    assert "collector_failed" in log
    assert '"collector":"app"' in events.replace(": ", ":"), "Sentry did not hear"
    own_redis.start()
    own_postgres.start()


@pytest.mark.parametrize(
    "arguments",
    [["check-config"], ["check-config", "--json"], ["contract", "check"], ["migrate", "status"], ["exporter", "run"]],
    ids=" ".join,
)
def test_no_command_repeats_a_value(arguments: list[str]) -> None:
    """Right or wrong settings, unreachable servers, values in the wrong place: the message names the setting only."""
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": f"postgresql://shop:{PLANTED['DATABASE']}@127.0.0.1:1/shop?connect_timeout=2",
        "REDIS_URL": f"mysql://:{PLANTED['REDIS']}@127.0.0.1",
        "OPS_LISTEN": PLANTED["TOKEN"],
        "OPS_LEDGER_SETTLE_SECONDS": PLANTED["KINGUIN"],
        "SENTRY_DSN": PLANTED["SENTRY"],
        "APP_JWT_SECRET": PLANTED["ADMIN"],
        "APP_ADMIN_ID": "1",
        "APP_ADMIN_EMAIL": EMAIL,
    }
    right = ("PATH", "DATABASE_URL", "APP_JWT_SECRET", "APP_ADMIN_ID", "APP_ADMIN_EMAIL")
    for given in (environment, {name: environment[name] for name in right}):
        command = [sys.executable, "-m", "opsctl.cli", *arguments]
        if given is not environment and arguments == ["exporter", "run"]:
            continue  # it would run, which is the test above
        ended = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)
        assert leaks(ended.stdout + ended.stderr) == []
        assert "Traceback" not in ended.stderr
        if given is environment:
            assert ended.returncode == 2, ended.stderr
            assert "REDIS_URL" in ended.stderr
    if "--json" in arguments:
        assert json.loads(ended.stdout)
