"""Debian's SQL exporters on our table, as their users set them up: the counts by one GROUP BY over all of it.

Milliseconds are the server's own, from the beginning of their query to its end (`pg_stat_activity`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from demo.processes import Account, Server, free_port
from tests.bench.scraper import Scraper

ROUNDS = 3  # queries of each
QUERY = (
    'SELECT "webhookType" AS type, processed::text, "signatureValid"::text AS valid, count(*)::float8 AS total '
    "FROM webhook_logs GROUP BY 1, 2, 3"
)
# Of postgres_exporter nothing but our query: its own would hide it.
OPTIONS = {
    "prometheus-sql-exporter": ("-config.file",),
    "prometheus-postgres-exporter": (
        *("--extend.query-path", "--disable-default-metrics", "--disable-settings-metrics"),
        *("--no-collector.database", "--no-collector.bgwriter"),
    ),
}
LABELS = ("type", "processed", "valid")
LAST = """SELECT query_start, extract(epoch FROM state_change - query_start) * 1000 FROM pg_stat_activity
          WHERE state = 'idle' AND query ~ 'webhook_logs' AND application_name = %s"""


def measure(dsn: str, directory: Path) -> Iterator[tuple[str, float]]:
    """Median milliseconds of database time each of them takes for one answer; one not installed is left out."""
    for name, (settings, environment) in {
        "prometheus-sql-exporter": _sql_exporter(dsn),
        "prometheus-postgres-exporter": _postgres_exporter(dsn),
    }.items():
        program = shutil.which(name)
        if program is None:
            print(f"{name}: not measured; apt-get install {name}")  # noqa: T201 - the report
            continue
        file = directory / f"{name}.yml"
        file.write_text(json.dumps(settings))  # YAML, too
        options = OPTIONS[name]
        port = free_port()
        argv = [program, f"{options[0]}={file}", *options[1:], f"--web.listen-address=127.0.0.1:{port}"]
        log, env = directory / f"{name}.log", {**os.environ, **environment}
        with Server(name, argv, log=log, account=Account.ours(), ready=lambda port=port: _answers(port), env=env):
            yield name, _time(dsn, name, port)


def _time(dsn: str, name: str, port: int) -> float:
    seen: dict[object, float] = {}
    ends = time.monotonic() + 90
    scraper = Scraper(port)
    with contextlib.closing(scraper), psycopg.connect(dsn, autocommit=True) as observer:
        while len(seen) < ROUNDS:
            assert time.monotonic() < ends, f"{name} asked {len(seen)} times only:\n{scraper.page().decode()[-2000:]}"
            page = scraper.page()
            time.sleep(0.1)
            seen.update((start, float(took)) for start, took in observer.execute(LAST, (name,)).fetchall())
    assert b'type="nowpayments_ipn"' in page, f"{name} shows no rows"
    return statistics.median(seen.values())


def _answers(port: int) -> bool:
    with contextlib.closing(Scraper(port)) as scraper:
        return bool(scraper.page())


def _url(dsn: str, name: str) -> str:
    parts = conninfo_to_dict(dsn)
    return (
        f"postgres:///{parts['dbname']}?host={parts['host']}&user={parts['user']}"
        f"&sslmode=disable&application_name={name}" + (f"&port={parts['port']}" if "port" in parts else "")
    )


def _sql_exporter(dsn: str) -> tuple[Mapping[str, object], Mapping[str, str]]:
    query = {"name": "webhooks", "help": "Webhooks.", "labels": LABELS, "values": ["total"], "query": QUERY}
    connections = [_url(dsn, "prometheus-sql-exporter")]
    return {"jobs": [{"name": "shop", "interval": "1s", "connections": connections, "queries": [query]}]}, {}


def _postgres_exporter(dsn: str) -> tuple[Mapping[str, object], Mapping[str, str]]:
    labels = [{label: {"usage": "LABEL", "description": label}} for label in LABELS]
    metrics = [*labels, {"total": {"usage": "GAUGE", "description": "Webhooks."}}]
    url = _url(dsn, "prometheus-postgres-exporter")
    return {"webhooks": {"query": QUERY, "master": True, "metrics": metrics}}, {"DATA_SOURCE_NAME": url}
