"""Does each slot happen once, whatever happens to those who schedule and work?

Three `opsctl jobs run` with the times they have in production, 24 jobs of one second each due every three seconds, and
for five minutes: kill -9 at random moments, SIGSTOP for 60 s of a process alone and of one with all its children, two
restarts of Postgres, one of ten seconds. Afterwards every slot is offered again. What must hold is counted, so a bound
of 0 is a bound.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import psycopg

from demo import postgres
from demo.postgres import PostgresServer
from demo.processes import private_directory, wait_until
from tests.bench import job_catalog
from tests.bench.line import Line
from tests.service import node_kit
from tests.service.node_kit import Node, Proof

SECONDS = 300
FROZEN = 60
OPTIONS = ["--catalog", "tests.bench.job_catalog:JOBS", "--concurrency", "default=12"]


def run() -> Iterator[Line]:
    """One cluster, one storm."""
    with private_directory() as directory, postgres.postgres(directory) as server:
        owner, dsn = node_kit.ops_database(server)

        def node(name: str, *options: str) -> Node:
            return Node(name, node_kit.OPSCTL, [*OPTIONS, *options], owner=owner, dsn=dsn, directory=directory)

        with contextlib.ExitStack() as stack:
            nodes = [stack.enter_context(node(name)) for name in ("one", "two", "three")]
            kills = _storm(nodes, server)
        with node("last", "--no-scheduler"):
            wait_until(lambda: _unfinished(owner) == 0, 180, "every run to end")
        again = _offer_again(owner)
        yield from _lines(node_kit.prove(owner, job_catalog.ALL, directory / "naps"), again, kills)


def _storm(nodes: list[Node], server: PostgresServer) -> int:
    """Everything at its time, each in a thread of its own, and a kill about every fifteen seconds between."""
    chance = random.Random(4)  # a storm to be repeated
    one, two, three = nodes
    plan: list[tuple[float, Callable[[], None]]] = [
        (20, lambda: _frozen(one)),
        (50, server.restart),
        (110, lambda: _paused(two)),
        (210, lambda: _away(server)),
        (220, lambda: _frozen(three)),
    ]
    busy = {one: (20, 90), two: (110, 180), three: (220, 290)}
    kills = 0
    at = 10.0
    while (at := at + chance.uniform(8, 20)) < SECONDS - 5:
        victim = chance.choice([n for n in nodes if not busy[n][0] - 15 <= at <= busy[n][1]])
        plan.append((at, lambda victim=victim: _killed(victim)))
        kills += 1
    threads = [threading.Timer(when, what) for when, what in plan]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS)
    for thread in threads:
        thread.join()
    return kills


def _away(server: PostgresServer) -> None:
    """Long enough for slots to coalesce."""
    server.stop()
    time.sleep(10)
    server.start()


def _frozen(node: Node) -> None:
    node.freeze()
    time.sleep(FROZEN)
    node.thaw()


def _paused(node: Node) -> None:
    with node.busy().paused():
        time.sleep(FROZEN)


def _killed(node: Node) -> None:
    node.busy().shoot()
    time.sleep(3)
    node.restart()


def _offer_again(owner: str) -> int:
    """Every slot, and one before the first: how many runs that makes."""
    made = 0
    with psycopg.connect(owner, autocommit=True) as connection:
        for job in job_catalog.ALL:
            row = connection.execute(
                """SELECT ops.job_decide(%(job)s, array_agg(slot), array_agg(false)) FROM (
                       SELECT slot FROM ops.job_slots WHERE job = %(job)s
                       UNION ALL SELECT min(slot) - interval '3 seconds' FROM ops.job_slots WHERE job = %(job)s) s""",
                {"job": job.name},
            ).fetchone()
            assert row
            made += row[0]
    return made


def _lines(proof: Proof, again: int, kills: int) -> Iterator[Line]:
    for problem in (*proof.wrong, *proof.overlaps):
        print("WRONG:", problem)  # noqa: T201 - the report
    delays = statistics.quantiles(proof.delays, n=100)
    print(  # noqa: T201 - the report
        f"{proof.slots} slots of {len(job_catalog.ALL)} jobs, {proof.skipped} skipped; runs {dict(proof.runs)}; "
        f"{kills} kills -9; {proof.lost} attempts lost, {proof.refused} zombie results refused; taken over after "
        f"{statistics.median(proof.takeovers):.1f} s (median), {max(proof.takeovers):.1f} s at most; "
        f"queue delay p50 {delays[49] * 1000:.0f} ms, p95 {delays[94]:.2f} s"
    )
    yield Line("slots wanted", 2000, "slots", proof.slots, 1, "")
    yield Line("slots, runs and outcomes that are not one", len(proof.wrong), "none", 1, 0, "")
    yield Line("runs that are no SUCCESS", sum(n for s, n in proof.runs.items() if s != "SUCCESS"), "none", 1, 0, "")
    yield Line("runs two processes worked on at once", len(proof.overlaps), "none", 1, 0, "")
    yield Line("runs made of slots offered again", again, "none", 1, 0, "")
    yield Line("zombie results wanted", 1, "refused", max(proof.refused, 0.5), 1, "")
    yield Line("coalesced slots wanted", 1, "recorded as skipped", max(proof.skipped, 0.5), 1, "")
    yield Line("work of a dead process taken over", max(proof.takeovers), "a minute", 60, 1, " s")


def _unfinished(owner: str) -> int:
    with psycopg.connect(owner) as connection:
        row = connection.execute("SELECT count(*) FROM ops.job_runs WHERE outcome IS NULL").fetchone()
        assert row
        return int(row[0])
