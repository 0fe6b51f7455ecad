"""Three processes that schedule and work, killed, frozen and cut off: each slot happens once. The bench is longer."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psycopg

from demo.postgres import PostgresServer
from demo.processes import wait_until
from tests.service import node_kit, short_catalog
from tests.service.node_kit import Node

TAKEN_OVER = 60  # seconds at most, as in production, where silence alone is 45 of them; here it is 5


def test_each_slot_once_whatever_happens(own_postgres: PostgresServer, tmp_path: Path) -> None:
    """Kill -9, SIGSTOP of a process and of a whole family, Postgres restarts; then late slots, which change nothing."""
    owner, dsn = node_kit.ops_database(own_postgres)

    def node(name: str, *flags: str) -> Node:
        options = ["tests.service.short_catalog:JOBS", *flags]
        return Node(name, node_kit.SHORT, options, owner=owner, dsn=dsn, directory=tmp_path)

    with contextlib.ExitStack() as stack:
        one, two, three = (stack.enter_context(node(name)) for name in ("one", "two", "three"))
        time.sleep(2)
        one.busy().shoot()
        two.freeze()
        two.given_up()
        two.thaw()
        one.restart()
        own_postgres.restart()
        time.sleep(2)
        three.busy().pause()
        three.given_up()
        three.resume()
        own_postgres.stop()
        time.sleep(3)
        own_postgres.start()
        time.sleep(4)
    with node("last", "--no-scheduler"):
        wait_until(lambda: _unfinished(owner) == 0, node_kit.WAIT, "every run to end")

    proof = node_kit.prove(owner, short_catalog.ALL, tmp_path / "naps")
    assert proof.wrong == ()
    assert proof.overlaps == ()
    assert proof.slots > 100
    # Time runs ten times as fast: on a busy machine a worker may seem dead five times, and its run is FAILED.
    assert proof.runs.keys() <= {"SUCCESS", "FAILED"}
    assert proof.runs["SUCCESS"] > 0.9 * sum(proof.runs.values())
    assert sum(proof.runs.values()) == proof.slots - proof.skipped
    assert proof.refused > 0, "the frozen one had results, and nobody refused them"
    assert proof.lost >= proof.refused
    assert proof.skipped > 0, "while Postgres was away slots passed, and those that catch up the latest left some out"
    assert max(proof.takeovers) < TAKEN_OVER
    _late(owner)


def test_the_proof_sees_two_at_work(database: str, tmp_path: Path) -> None:
    """One that was still seen when the other had begun; not one after the other."""
    naps = tmp_path / "naps"
    with psycopg.connect(database) as connection:
        for ended, wrong in ((6.0, 1), (5.4, 0)):
            naps.write_text(f"1 1 100 5.0\n1 1 100 {ended}\n1 2 200 5.5\n1 2 200 6.5\n2 1 300 5.2\n")
            found = list(node_kit.overlaps(connection, naps))
            assert len(found) == wrong
            assert all("run 1: attempt 1 in process 100" in words and "process 200" in words for words in found)


def _late(owner: str) -> None:
    """Every slot again, and one before all: nothing runs."""
    with psycopg.connect(owner, autocommit=True) as connection:
        before = connection.execute("SELECT count(*) FROM ops.job_runs").fetchone()
        for job in short_catalog.ALL:
            again = """SELECT ops.job_decide(%s, array_agg(slot), array_agg(false))
                       FROM (SELECT slot FROM ops.job_slots WHERE job = %s
                             UNION ALL SELECT min(slot) - interval '1 second' FROM ops.job_slots WHERE job = %s) s"""
            assert connection.execute(again, (job.name, job.name, job.name)).fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM ops.job_runs").fetchone() == before
        late = connection.execute("SELECT sum(count) FROM ops.job_counts WHERE event = 'slot_late'").fetchone()
        assert late == (len(short_catalog.ALL),)


def _unfinished(owner: str) -> int:
    with psycopg.connect(owner) as connection:
        row = connection.execute("SELECT count(*) FROM ops.job_runs WHERE outcome IS NULL").fetchone()
        assert row
        return int(row[0])
