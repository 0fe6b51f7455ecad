"""Backing up two gigabytes: against plain COPY, the limit, and `pg_dump | gzip`, then upload, what everyone does.

Each method runs in turn, each as its own process; the store is `rclone serve s3` on the same two cores. Our process's
memory is its peak (VmHWM), and what it leaves on the disk is looked for. In the end the object is restored with
`gunzip -c | psql` and every table counted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql

from demo import app_schema
from demo.postgres import PostgresServer, postgres
from demo.processes import private_directory
from demo.s3 import S3Server, s3_server
from opslib.areas.pg_tools import Tools, choose, environment
from opslib.contract import migrate
from opslib.settings import Settings
from tests.bench.line import Line
from tests.bench.table import show

SMALL, LARGE = 200_000, 2_200_000
"""Rows of `webhook_logs`: 0.2 and 2.2 GB of dump."""
ROUNDS = 5
ROWS = """
INSERT INTO webhook_logs ("externalId", "webhookType", payload, signature, "signatureValid", processed, "orderId",
                          "paymentStatus", "createdAt", "updatedAt")
SELECT n, 'nowpayments_ipn',
       jsonb_build_object('payment_id', n, 'payment_status', 'finished', 'price_amount', n % 10000,
                          'pay_currency', 'btc', 'pay_address', md5(n::text),
                          'order_description', repeat('Steam key, region free; ', 12),
                          'purchase_id', md5((n * 7)::text), 'outcome_amount', (n % 997) / 7.0,
                          'ipn_callback_url', 'https://shop.example.com/api/webhooks/nowpayments',
                          'created_at', timestamp '2026-01-01' + n * interval '7 s',
                          'actually_paid', (n % 10007) / 13.0,
                          'fee', jsonb_build_object('currency', 'btc', 'value', n % 91)),
       md5(n::text) || md5((n + 1)::text), true, true, gen_random_uuid(), 'finished',
       timestamp '2026-01-01' + n * interval '7 s', timestamp '2026-01-01' + n * interval '7 s'
FROM generate_series(1, {rows}) n
"""
ORDERS = """
INSERT INTO orders (email, status, "totalCrypto", "createdAt", "updatedAt")
SELECT 'buyer-' || n || '@example.com', 'fulfilled', 9.5, timestamp '2026-01-01' + n * interval '7 s',
       timestamp '2026-01-01' + n * interval '7 s' FROM generate_series(1, {rows}) n
"""
OURS = """
import json, sys
from opslib import settings
from opslib.run import Run
from opslib.spec import NoParams
from jobs import backup_database
run = Run(1, "backup-database", settings.load(), None, 1, "bench", lambda _: None, lambda: False)
import time
began = time.perf_counter()
made = backup_database.run(run, NoParams())
seconds = time.perf_counter() - began
hwm = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"seconds": seconds, "mb": int(hwm.split()[1]) / 1024, "key": made.key, "size": made.size,
                  "dump": made.dump_size, "rows": made.rows}))
"""
UPLOAD = """
import os, sys
from opslib import settings
from opslib.storage import Storage
store = Storage.of(settings.load())
store.client.upload_file(sys.argv[1], store.bucket, "bench/peer.sql.gz")
"""


def run() -> Iterator[Line]:
    """Two databases, one server, one store."""
    with (
        private_directory() as directory,
        postgres(directory) as server,
        tempfile.TemporaryDirectory() as folder,
        s3_server(Path(folder)) as store,
    ):
        tools = choose(18, Settings())
        small, large = (_shop(server, name, rows) for name, rows in (("small", SMALL), ("large", LARGE)))
        yield from _measure(Bench(store, tools, Path(folder)), small, large, server)


class Bench:
    """The methods, on one store."""

    def __init__(self, store: S3Server, tools: Tools, folder: Path) -> None:
        self.store = store
        self.tools = tools
        self.folder = folder
        self.gzipped = 0
        self.peak_disk = 0

    def settings(self, dsn: str) -> dict[str, str]:
        """The environment of a process of ours."""
        return {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": dsn,
            "R2_ENDPOINT": self.store.endpoint,
            "R2_BUCKET": "bitloot",
            "R2_ACCESS_KEY_ID": self.store.access_key_id,
            "R2_SECRET_ACCESS_KEY": self.store.secret_access_key,
            "TMPDIR": str(self._temporary()),
            "OPS_LOG_LEVEL": "error",
        }

    def _temporary(self) -> Path:
        path = self.folder / "tmp"
        path.mkdir(exist_ok=True)
        return path

    def ours(self, dsn: str) -> dict[str, float]:
        """`backup-database`, with what it holds in memory and on disk."""
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch_disk, args=(stop,))
        watcher.start()
        done = subprocess.run(
            [sys.executable, "-c", OURS], env=self.settings(dsn), check=True, capture_output=True, text=True
        )
        stop.set()
        watcher.join()
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found

    def _watch_disk(self, stop: threading.Event) -> None:
        while not stop.wait(0.1):
            used = sum(file.stat().st_blocks * 512 for file in self._temporary().rglob("*") if file.is_file())
            self.peak_disk = max(self.peak_disk, used)

    def copy(self, dsn: str) -> float:
        """COPY of each table by one connection, thrown away."""
        with psycopg.connect(dsn, autocommit=True) as connection:
            tables = connection.execute(
                "SELECT n.nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
                "WHERE relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
            ).fetchall()
        began = time.perf_counter()
        statements = "".join(f'COPY "{schema}"."{name}" TO STDOUT;\n' for schema, name in tables)
        subprocess.run(
            [self.tools.program("psql"), "-XqAt"],
            input=statements.encode(),
            stdout=subprocess.DEVNULL,
            env=environment(dsn, application_name="bench"),
            check=True,
        )
        return time.perf_counter() - began

    def peer(self, dsn: str) -> float:
        """`pg_dump | gzip > file`, then upload."""
        path = self.folder / "peer.sql.gz"
        env = {**environment(dsn, application_name="bench"), **self.settings(dsn)}
        began = time.perf_counter()
        subprocess.run(  # noqa: S602 - as everybody writes it
            f"set -o pipefail; {self.tools.program('pg_dump')} | gzip > {path}",
            shell=True,
            executable="/bin/bash",
            env=env,
            check=True,
        )
        subprocess.run([sys.executable, "-c", UPLOAD, str(path)], env=env, check=True)
        seconds = time.perf_counter() - began
        self.gzipped = path.stat().st_size
        path.unlink()
        return seconds


def _shop(server: PostgresServer, name: str, rows: int) -> str:
    with server.connect() as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    dsn = server.dsn(name)
    app_schema.create(dsn)
    migrate.up(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(ROWS.format(rows=rows).encode())
        connection.execute(ORDERS.format(rows=rows // 4).encode())
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    return dsn


def _measure(bench: Bench, small: str, large: str, server: PostgresServer) -> Iterator[Line]:
    few = bench.ours(small)
    turns = [(bench.copy(large), bench.ours(large), bench.peer(large)) for _ in range(ROUNDS)]
    copy, peer = (statistics.median(turn[at] for turn in turns) for at in (0, 2))
    ours = statistics.median(turn[1]["seconds"] for turn in turns)
    last = turns[-1][1]
    show(
        "Rounds",
        ("COPY, s", "ours, s", "pg_dump, gzip, upload, s", "ours, RSS MB", "ours, MB/s"),
        [
            (f"{c:.1f}", f"{o['seconds']:.1f}", f"{p:.1f}", f"{o['mb']:.0f}", f"{o['dump'] / o['seconds'] / 1e6:.0f}")
            for c, o, p in turns
        ],
    )
    yield Line(f"backup of {last['dump'] / 1e9:.1f} GB", ours, "plain COPY", copy, 1.3, unit=" s")
    yield Line("the same", ours, "pg_dump | gzip, upload", peer, 1 / 3.5, unit=" s")
    yield Line("its size", last["size"] / 1e6, "gzip -6", bench.gzipped / 1e6, 1.15, unit=" MB")
    yield Line("memory", max(turn[1]["mb"] for turn in turns), "target", 200, 1, unit=" MB")
    yield Line("memory", max(turn[1]["mb"] for turn in turns), "of 0.2 GB", few["mb"], 1.1, unit=" MB")
    yield Line("temporary files", bench.peak_disk / 1e6, "any", 1, 0, unit=" MB")
    yield _restored(bench, str(last["key"]), large, server)


def _restored(bench: Bench, key: str, source: str, server: PostgresServer) -> Line:
    """`gunzip -c | psql` into an empty database, as a person would without us."""
    with server.connect() as admin:
        admin.execute("CREATE DATABASE restored TEMPLATE template0")
    target = server.dsn("restored")
    path = bench.store.root / "bitloot" / key
    began = time.perf_counter()
    subprocess.run(  # noqa: S602 - as everybody writes it
        f"set -o pipefail; gunzip -c {path} | {bench.tools.program('psql')} -Xq -v ON_ERROR_STOP=1 > /dev/null",
        shell=True,
        executable="/bin/bash",
        env={**environment(target, application_name="bench"), "PATH": os.environ["PATH"]},
        check=True,
    )
    seconds = time.perf_counter() - began
    counts = [_counts(dsn) for dsn in (source, target)]
    show(
        "gunzip -c | psql",
        ("s", "tables", "rows"),
        [(f"{seconds:.1f}", str(len(counts[1])), str(sum(counts[1].values())))],
    )
    differing = sum(counts[0][table] != counts[1].get(table) for table in counts[0])
    return Line("tables whose rows differ after gunzip -c | psql", differing, "any", 1, 0, unit="")


def _counts(dsn: str) -> dict[str, int]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT format('%I.%I', n.nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
        ).fetchall()
        found = {}
        for (table,) in tables:
            row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
            found[table] = row[0] if row else -1
    return found
