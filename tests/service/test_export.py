"""Exports through the installed command: whole or not at all, nothing a spreadsheet runs, and resumable."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from demo.postgres import PostgresServer
from demo.processes import wait_until
from opslib.areas.export import EXPORTS

OPSCTL = Path(sys.executable).parent / "opsctl"
EVIL = ("=HYPERLINK(1)", "+1", "-1", "@SUM", "\t=1", "\r=1", " =1", '-5,"x"')


@pytest.fixture
def staff(database: str) -> Iterator[str]:
    """The DSN of a member of ops_staff."""
    name = f"t_staff_{uuid4().hex[:8]}"
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {name} LOGIN IN ROLE ops_staff".encode())
        yield make_conninfo(database, user=name)
        owner.execute(f"DROP ROLE {name}".encode())


def fill(database: str, orders: int, spacing: str = "1 minute") -> None:
    """So many orders, the first at noon."""
    with psycopg.connect(database, autocommit=True) as app:
        app.execute(
            """INSERT INTO orders (email, status, "totalCrypto", "createdAt")
               SELECT 'anna' || n %% 3 || '@example.com', (ARRAY['paid', 'waiting'])[1 + n %% 2], -n,
                      timestamp '2026-01-01 12:00:00.25' + (n / 2) * %s::interval
               FROM generate_series(0, %s - 1) n""",
            (spacing, orders),
        )


def export(dsn: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """The installed command."""
    return subprocess.run(
        [OPSCTL, "export", *arguments],
        env={"PATH": os.environ["PATH"], "DATABASE_URL": dsn},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )


def table(text: bytes) -> list[dict[str, str]]:
    """The rows of a CSV."""
    return list(csv.DictReader(io.StringIO(text.decode(), newline="")))


def test_orders_begin_as_promised_and_hold_every_row(database: str, staff: str) -> None:
    """Oldest first, money as it is, addresses masked; the same rows as NDJSON; the filters."""
    fill(database, 50)
    ended = export(staff, "orders")
    assert ended.stdout.startswith(b"order_id,email,status,total,created_at,")
    rows = table(ended.stdout)
    assert len({row["order_id"] for row in rows}) == 50
    assert [row["created_at"] for row in rows] == sorted(row["created_at"] for row in rows)
    assert {row["email"] for row in rows} == {"a***@example.com"}
    assert sorted(float(row["total"]) for row in rows) == [-n for n in range(49, -1, -1)]
    assert not [row for row in rows if row["total"].startswith("'")]
    lines = export(staff, "orders", "--format", "ndjson").stdout.splitlines()
    assert [json.loads(line)["order_id"] for line in lines] == [row["order_id"] for row in rows]
    some = table(
        export(
            staff, "orders", "--status", "paid", "--from", "2026-01-01T12:05Z", "--email", "anna0@example.com"
        ).stdout
    )
    assert sorted(float(row["total"]) for row in some) == [-48, -42, -36, -30, -24, -18, -12]


def test_no_cell_is_a_formula(database: str, staff: str) -> None:
    """A text that would run gets an apostrophe; a negative number none; JSON says it as it is."""
    with psycopg.connect(database, autocommit=True) as app:
        for n, evil in enumerate(EVIL):
            app.execute(
                """INSERT INTO orders (email, status, "totalCrypto", "kinguinReservationId")
                   VALUES ('anna@example.com', 'paid', -5, %s)""",
                (evil,),
            )
            app.execute(
                """INSERT INTO webhook_logs ("externalId", "webhookType", payload, error) VALUES (%s, %s, '{}', %s)""",
                (f"{evil}{n}", "nowpayments_ipn", evil),
            )
    rows = table(export(staff, "orders").stdout)
    assert {row["reservation_id"] for row in rows} == {f"'{evil}" for evil in EVIL}
    assert {row["total"] for row in rows} == {"-5.00000000"}
    events = table(export(staff, "webhooks").stdout)
    assert {event["error"] for event in events} == {f"'{evil}" for evil in EVIL}
    assert all(event["external_id"].startswith("'") for event in events)
    plain = [json.loads(line) for line in export(staff, "orders", "--format", "ndjson").stdout.split(b"\n") if line]
    assert {row["reservation_id"] for row in plain} == set(EVIL)


@pytest.mark.parametrize("what", EXPORTS)
def test_every_export_has_a_head_and_its_filters(what: str, staff: str) -> None:
    """Of an empty shop the head alone; a filter it does not take is named."""
    ended = export(staff, what, "--from", "2026-01-01", "--to", "2026-02-01")
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 1
    for option in {"--status", "--email", "--provider", "--type"} - {f"--{name}" for name in EXPORTS[what].filters}:
        refused = export(staff, what, option, "x")
        assert (refused.returncode, option in refused.stderr.decode()) == (2, True)


def test_a_part_outlives_a_slip_of_the_finger(database: str, staff: str, tmp_path: Path) -> None:
    """What came before is not thrown away by a command that was wrong."""
    fill(database, 3)
    part = tmp_path / "orders.csv.part"
    part.write_bytes(b"an hour of work")
    assert export(staff, "orders", "-o", str(tmp_path / "orders.csv"), "--type", "x").returncode == 2
    assert export(staff, "orders", "-o", str(tmp_path / "orders.csv"), "--after", "x").returncode == 2
    assert part.read_bytes() == b"an hour of work"


def test_a_file_is_whole_or_called_otherwise(
    postgres_server: PostgresServer, database: str, staff: str, tmp_path: Path
) -> None:
    """Broken off by the server in the middle: NAME.part, exit code, a key; with the key it becomes the whole file."""
    fill(database, 200_000, "1 second")
    path = tmp_path / "orders.csv"
    whole = tmp_path / "whole.csv"
    assert export(staff, "orders", "-o", str(whole)).returncode == 0
    # A pipe nobody empties holds it in the middle of its rows.
    holder = tmp_path / "pipe.csv.part"
    os.mkfifo(holder)
    with subprocess.Popen(
        [OPSCTL, "export", "orders", "-o", str(tmp_path / "pipe.csv")],
        env={"PATH": os.environ["PATH"], "DATABASE_URL": staff},
        stderr=subprocess.PIPE,
    ) as process:
        with holder.open("rb", buffering=0) as pipe:
            got = pipe.read(100_000)
            with postgres_server.connect() as admin:
                wait_until(
                    lambda: admin.execute(
                        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                           WHERE query LIKE 'COPY%%' AND datname = %s""",
                        (psycopg.conninfo.conninfo_to_dict(staff)["dbname"],),
                    ).fetchall(),
                    10,
                    "the export to be under way",
                )
            while more := pipe.read(1_000_000):
                got += more
        assert process.stderr
        said = process.stderr.read().decode()
        assert process.wait(30) == 1, said
    assert not (tmp_path / "pipe.csv").exists()
    part = tmp_path / "orders.csv.part"
    part.write_bytes(got)
    (key,) = re.findall(r"--after (\S+)", said)
    assert 0 < len(table(got)) < 200_000
    assert table(got)[-1]["order_id"] == key.rpartition("/")[2], "the key is that of the last whole row"
    assert f"{len(table(got)):,} rows" in said
    assert export(staff, "orders", "-o", str(path), "--after", key).returncode == 0
    assert path.read_bytes() == whole.read_bytes()
    assert not part.exists()
    assert whole.stat().st_mode & 0o077 == 0


def test_compressed_is_what_gunzip_reads(database: str, staff: str, tmp_path: Path) -> None:
    """To a file and to a pipe; an interrupted one leaves no file of that name."""
    fill(database, 1000)
    plain = export(staff, "orders").stdout
    path = tmp_path / "orders.csv.gz"
    ended = export(staff, "orders", "--gzip", "-o", str(path))
    assert (ended.returncode, b"1,000 orders" in ended.stderr) == (0, True)
    assert gzip.decompress(path.read_bytes()) == gzip.decompress(export(staff, "orders", "--gzip").stdout) == plain
    assert export(staff, "orders", "-o", str(tmp_path / "missing" / "x")).returncode == 1


def test_interrupted_by_hand(database: str, staff: str, tmp_path: Path) -> None:
    """Ctrl-C says where to go on, and leaves the part."""
    fill(database, 100_000, "1 second")
    holder = tmp_path / "pipe.csv.part"
    os.mkfifo(holder)
    with subprocess.Popen(
        # Whoever runs the tests in the background of a script ignores Ctrl-C, and so would it.
        ["env", "--default-signal=INT", OPSCTL, "export", "orders", "-o", str(tmp_path / "pipe.csv")],
        env={"PATH": os.environ["PATH"], "DATABASE_URL": staff},
        stderr=subprocess.PIPE,
    ) as process:
        with holder.open("rb", buffering=0) as pipe:
            pipe.read(100_000)
            process.send_signal(signal.SIGINT)
            while pipe.read(1_000_000):
                pass
        assert process.stderr
        said = process.stderr.read().decode()
        assert (process.wait(30), "it was interrupted" in said, "--after 2026-01-0" in said) == (1, True, True), said
    assert not (tmp_path / "pipe.csv").exists()
