"""The guard and the audit: writers who do not fork, changes that are found, rights that hold, how fast each is."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from demo import app_schema
from demo.postgres import PostgresServer, postgres
from demo.processes import private_directory
from demo.redis import redis_server
from opslib import audit, audit_chain
from opslib.areas import redis_acl
from opslib.audit import Event, Outcome
from opslib.contract import contract, migrate
from tests.bench.line import Line
from tests.service import acl_kit
from tests.service.audit_kit import DAMAGE, unlocked
from tests.service.test_roles import Relation, allowed, writes

WRITERS, EACH = 32, 1_000
ROWS = 500_000
ROUNDS = 5
OPSCTL = str(Path(sys.executable).parent / "opsctl")

FILL = """
DO $$ BEGIN
    FOR i IN 1..%d LOOP
        PERFORM ops.audit_append('OPS_QUEUE_ACTION', 'queues.retry', 'allowed', 'mail:' || i,
            jsonb_build_object('id', i, 'name', 'send', 'attempts', 3), 'the provider was down', '', 'h-1', NULL, 12);
        IF i %% 50 = 0 THEN COMMIT; END IF;
    END LOOP;
END $$
"""


def run() -> Iterator[Line]:
    """Everything on servers of its own."""
    with private_directory() as directory, postgres(directory) as server:
        for name in ("writers", "rows", "rights", *(f"damage_{n}" for n in range(len(DAMAGE)))):
            with server.connect() as admin:
                admin.execute(f"CREATE DATABASE {name}")
            migrate.up(server.dsn(name))
        yield from _writers(server.dsn("writers"))
        yield from _speed(server)
        yield from _damage(server)
        yield from _rights(server)
        yield from _refusal(server)
    yield from _redis()


def _none(what: str, found: int) -> Line:
    return Line(what, found, "target", 1, 0, unit="")


def _writers(dsn: str) -> Iterator[Line]:
    def write() -> None:
        with audit.connect(dsn) as connection:
            for number in range(EACH):
                audit.append(connection, Event("OPS_BENCH", "bench.write", str(number)), Outcome.ALLOWED)

    threads = [threading.Thread(target=write) for _ in range(WRITERS)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - started
    report = audit_chain.verify(dsn)
    forks = len(report.findings) + abs(report.events - WRITERS * EACH)
    yield _none(f"{WRITERS} writers x {EACH:,} events: forks ({WRITERS * EACH / seconds:,.0f} events/s)", forks)


def _speed(server: PostgresServer) -> Iterator[Line]:
    with server.connect("rows") as owner:
        owner.execute("SET synchronous_commit = off")
        owner.execute((FILL % ROWS).encode())
        owner.execute("VACUUM ANALYZE ops.audit_events")
    reports = [audit_chain.verify(server.dsn("rows")) for _ in range(ROUNDS)]
    assert all(report.ok and report.events == ROWS for report in reports)
    per_row = statistics.median(report.seconds / report.events for report in reports) * 1e6
    yield Line(f"audit verify, {ROWS:,} events ({1e6 / per_row:,.0f} a second)", per_row, "target", 2, 1, unit=" µs")


def _damage(server: PostgresServer) -> Iterator[Line]:
    missed = []
    for number, (name, statement) in enumerate(DAMAGE.items()):
        dsn = server.dsn(f"damage_{number}")
        with audit.connect(dsn) as connection:
            for target in range(8):
                audit.append(connection, Event("OPS_BENCH", "bench.write", f"mail:{target}"), Outcome.ALLOWED)
            audit.append(connection, Event("OPS_BENCH", "bench.write"), Outcome.INTENT)
        whole = audit_chain.verify(dsn).ok
        with server.connect(f"damage_{number}") as owner:
            unlocked(owner, statement)
        if not whole or _opsctl(dsn, "audit", "verify").returncode != 1:
            missed.append(name)
    yield _none(f"{len(DAMAGE)} ways to change it as a superuser: not found by `opsctl audit verify`", len(missed))


def _rights(server: PostgresServer) -> Iterator[Line]:
    dsn = server.dsn("rights")
    app_schema.create(dsn)
    contract.apply(dsn)
    tried: list[str] = []
    done: list[str] = []
    with server.connect("rights") as owner:
        relations = owner.execute(
            """SELECT n.nspname, c.relname, a.attname FROM pg_class c
               JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1
               WHERE c.relkind IN ('r', 'p') AND n.nspname IN ('public', 'ops', 'ops_app', 'ops_view')"""
        ).fetchall()
        for role in ("staff", "grafana"):
            owner.execute(f"CREATE ROLE bench_{role} LOGIN IN ROLE ops_{role}")
            with psycopg.connect(make_conninfo(dsn, user=f"bench_{role}"), autocommit=True) as connection:
                for relation in relations:
                    for statement in writes(Relation(*relation)):
                        tried.append(statement)
                        if allowed(connection, statement):
                            done.append(f"{role}: {statement}")
    assert done == [], done
    yield _none(f"{len(relations)} tables x 7 ways to write as staff and grafana, {len(tried)} tried: done", len(done))


def _refusal(server: PostgresServer) -> Iterator[Line]:
    with server.connect("rights") as owner:
        owner.execute("CREATE ROLE bench_super LOGIN IN ROLE ops_super")
    dsn = make_conninfo(server.dsn("rights"), user="bench_super")
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        ended = _opsctl(dsn, "operators", "disable", "anna", "--reason", "bench")
        times.append((time.perf_counter() - started) * 1000)
        assert (ended.returncode, "nobody to ask" in ended.stderr) == (3, True), ended.stderr
    with server.connect("rights") as owner:
        row = owner.execute("SELECT count(*) FROM ops.audit_events WHERE outcome = 'refused'").fetchone()
    assert row == (ROUNDS,)
    yield Line("no terminal, no --yes: refused (exit 3, audited)", statistics.median(times), "target", 1000, 1)


def _redis() -> Iterator[Line]:
    binary = shutil.which("redis-server", path="/usr/bin:/usr/local/bin")
    if binary is None:
        raise FileNotFoundError("this bench needs Redis 7: apt-get install redis-server")
    with private_directory() as directory, redis_server(directory, Path(binary)) as server:
        acl_kit.make_users(server)
        verbs = acl_kit.verbs(server)
        tried, done = 0, []
        for user in redis_acl.USERS:
            for key, inside in (("bull:q:1", True), ("app:session:1", False)):
                for verb in verbs:
                    if acl_kit.forbidden(verb, user, inside=inside):
                        tried += 1
                        if acl_kit.permitted(server, user, verb, key):
                            done.append(f"{user}: {verb.name} {key}")
    assert done == [], done
    yield _none(f"{tried} Redis commands outside their rights as ops_read and ops_write: done", len(done))


def _opsctl(dsn: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": dsn}
    return subprocess.run(
        [OPSCTL, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
