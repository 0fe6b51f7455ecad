"""`opsctl jobs run` as processes to be killed, frozen and restarted, and the proof that no slot was lost or done twice.

A job of `naps` writes a line to the file `NAPS` names at every step, so that two processes at work on one run would be
seen even where the database kept them apart.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg.conninfo import make_conninfo

from demo.postgres import PostgresServer
from demo.processes import Account, Server, wait_until
from opslib.contract import migrate
from opslib.jobs import schedule
from opslib.run import Run
from opslib.spec import CatchUp, Every, Job, NoParams

ROOT = Path(__file__).parents[2]
OPSCTL = (sys.executable, "-m", "opsctl.cli", "jobs", "run")
SHORT = (sys.executable, "-m", "tests.service.short_node")
"""The same with a time that runs some ten times as fast: `short_node.TIMING`."""
WAIT = 120.0
"""Seconds for what takes some, on a busy machine."""


def nap(run: Run, seconds: float) -> None:
    """Work for so long, and say so at every step."""
    _note(run)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, 0.05))
        _note(run)


def _note(run: Run) -> None:
    # The time first: one frozen right after the question may write its line too late, and has not worked since.
    at = time.monotonic()
    run.check_cancelled()
    line = f"{run.id} {run.attempt} {os.getpid()} {at}\n"
    descriptor = os.open(os.environ["NAPS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())  # in one piece
    finally:
        os.close(descriptor)


def naps(count: int, seconds: int, timeout: float) -> list[Job]:
    """So many jobs, one slot each every `seconds`; each fourth catches up its latest slot only, the others all."""
    return [
        Job(
            f"nap-{n:02d}",
            f"Nap {n}",
            Every(seconds),
            timeout=timeout,
            params=NoParams,
            catch_up=CatchUp.LATEST if n % 4 == 3 else CatchUp.ALL,
        )
        for n in range(count)
    ]


def ops_database(server: PostgresServer, name: str = "ops_jobs") -> tuple[str, str]:
    """A database with our schema: the owner's DSN, and that of a login which is a member of ops_jobs and no more."""
    with server.connect() as admin:
        admin.execute(f"CREATE DATABASE {name}")
    owner = server.dsn(name)
    migrate.up(owner)
    with server.connect(name) as admin:
        admin.execute(f"CREATE ROLE {name}_worker LOGIN IN ROLE ops_jobs")
    return owner, make_conninfo(owner, user=f"{name}_worker")


class Node(Server):
    """One process that schedules and works.

    Args:
        name: For its log.
        command: `OPSCTL` or `SHORT`.
        options: Its command line.
        owner: The database as its owner, to see when it has arrived.
        dsn: The database as it logs in.
        directory: For its log and the naps.
    """

    def __init__(
        self, name: str, command: Sequence[str], options: Sequence[str], *, owner: str, dsn: str, directory: Path
    ) -> None:
        self._owner = owner
        self._naps = directory / "naps"
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "OPS_DATABASE_URL": dsn,
            "NAPS": str(self._naps),
        }
        super().__init__(
            name,
            [*command, *options],
            log=directory / f"{name}.log",
            account=Account.ours(),
            ready=self._arrived,
            env=environment,
        )

    def _arrived(self) -> bool:
        try:
            with psycopg.connect(self._owner) as connection:
                found = connection.execute("SELECT 1 FROM ops.job_workers WHERE node LIKE %s", (f"%:{self.pid}",))
                return found.fetchone() is not None
        except psycopg.OperationalError:
            return False  # being restarted itself

    def busy(self) -> Self:
        """Wait until it has an attempt in hand, that being the moment to do something to it."""
        wait_until(self._held, WAIT, f"{self.name} to have work")
        return self

    def freeze(self) -> None:
        """Stop this process alone, with attempts at work; its children work on."""
        while True:
            wait_until(self._working, WAIT, f"{self.name} to work")
            os.kill(self.pid, signal.SIGSTOP)
            time.sleep(0.2)  # what it said in that moment has arrived
            if self._working():
                return
            self.thaw()

    def thaw(self) -> None:
        """Undo `freeze`."""
        os.kill(self.pid, signal.SIGCONT)

    def given_up(self) -> None:
        """Wait until the others took what it held for lost."""
        wait_until(lambda: self._held() == set(), WAIT, f"{self.name} to be given up")

    def _held(self) -> set[tuple[str, str]] | None:
        """Runs and numbers of the attempts it has in hand; None: Postgres is away."""
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self._owner) as asking:
            sql = "SELECT run::text, number::text FROM ops.job_attempts WHERE finished_at IS NULL AND node LIKE %s"
            return set(asking.execute(sql, (f"%:{self.pid}",)).fetchall())
        return None

    def _working(self) -> bool:
        """Has one of them begun its nap?"""
        lines = self._naps.read_text().splitlines() if self._naps.exists() else []
        return not {tuple(line.split()[:2]) for line in lines}.isdisjoint(self._held() or set())

    def shoot(self) -> None:
        """Kill -9 this process alone; its children are on their own."""
        os.kill(self.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Proof:
    """What the database and the naps say when all is over.

    Attributes:
        slots: Slots that were due.
        skipped: Of these, recorded as left out.
        runs: Runs that ended, by outcome.
        wrong: Everything that must not be, in words; empty.
        refused: Results refused and counted.
        lost: Attempts ended because their process was gone.
        overlaps: Runs two processes worked on at once, in words; empty.
        takeovers: For each lost attempt that was tried again, seconds from its last sign of life to the next attempt.
        delays: Seconds each scheduled run waited to be taken.
    """

    slots: int
    skipped: int
    runs: Mapping[str, int]
    wrong: tuple[str, ...]
    refused: int
    lost: int
    overlaps: tuple[str, ...]
    takeovers: tuple[float, ...]
    delays: tuple[float, ...]


def prove(owner: str, jobs: Sequence[Job], naps_file: Path) -> Proof:
    """Each slot exactly one row, each row not skipped exactly one run, each run exactly one accepted outcome."""
    with psycopg.connect(owner, autocommit=True) as connection:
        rows = connection.execute("SELECT job, slot, run FROM ops.job_slots").fetchall()
        wrong = [*_slots(connection, jobs, rows), *_outcomes(connection)]
        return Proof(
            slots=len(rows),
            skipped=sum(run is None for _, _, run in rows),
            runs=dict(connection.execute("SELECT outcome, count(*) FROM ops.job_runs GROUP BY 1").fetchall()),
            wrong=tuple(wrong),
            refused=_number(connection, "SELECT count(*) FROM ops.job_attempts WHERE refused IS NOT NULL"),
            lost=_number(connection, "SELECT count(*) FROM ops.job_attempts WHERE lost"),
            overlaps=tuple(overlaps(connection, naps_file)),
            takeovers=_column(
                connection,
                """SELECT extract(epoch FROM b.started_at - a.heartbeat_at)::float8 FROM ops.job_attempts a
                   JOIN ops.job_attempts b ON b.run = a.run AND b.number = a.number + 1 WHERE a.lost""",
            ),
            delays=_column(connection, "SELECT queue_delay FROM ops_view.job_runs WHERE slot IS NOT NULL"),
        )


def _slots(connection: psycopg.Connection, jobs: Sequence[Job], rows: Sequence[tuple[Any, ...]]) -> Iterator[str]:
    by_job = defaultdict(dict)
    for job, slot, run in rows:
        by_job[job][slot] = run
    for job in jobs:
        assert job.schedule
        found = by_job[job.name]
        start = connection.execute("SELECT slots_from FROM ops.jobs WHERE job = %s", (job.name,)).fetchone()
        assert start
        due = set(schedule.slots(job.schedule, start[0], max(found)))
        if due != found.keys():
            yield f"{job.name}: {len(due - found.keys())} slots without a row, {len(found.keys() - due)} too many"
        if job.catch_up is CatchUp.ALL and None in found.values():
            yield f"{job.name} catches up all slots and skipped one"
    twice = """SELECT count(*) FROM (
                   SELECT job, slot FROM ops.job_runs WHERE slot IS NOT NULL GROUP BY 1, 2 HAVING count(*) > 1) x"""
    if number := _number(connection, twice):
        yield f"{number} slots with more than one run"
    orphans = """SELECT count(*) FROM ops.job_slots s FULL JOIN ops.job_runs r ON r.id = s.run
                 WHERE s.run IS NOT NULL AND r.id IS NULL OR r.slot IS NOT NULL AND s.slot IS DISTINCT FROM r.slot"""
    if number := _number(connection, orphans):
        yield f"{number} slots and runs that do not fit"


def _outcomes(connection: psycopg.Connection) -> Iterator[str]:
    accepted = """SELECT count(*) FROM ops.job_runs r WHERE outcome = 'SUCCESS' AND 1 <> (
                      SELECT count(*) FROM ops.job_attempts a WHERE a.run = r.id AND a.outcome = 'SUCCESS')"""
    if number := _number(connection, accepted):
        yield f"{number} runs without exactly one accepted outcome"
    if number := _number(connection, "SELECT count(*) FROM ops.job_runs WHERE outcome IS NULL"):
        yield f"{number} runs that never ended"
    if number := _number(connection, "SELECT count(*) FROM ops.procrastinate_jobs"):
        yield f"{number} deliveries left in the queue"
    if number := _number(connection, "SELECT count(*) FROM ops.job_attempts WHERE finished_at IS NULL"):
        yield f"{number} attempts that never ended"
    counted = """SELECT coalesce(sum(count), 0) FROM ops.job_counts WHERE event = 'result_refused'"""
    refused = "SELECT count(*) FROM ops.job_attempts WHERE refused IS NOT NULL"
    if _number(connection, counted) != _number(connection, refused):
        yield "refused results are not counted right"
    totals = "SELECT coalesce(sum(runs), 0) FROM ops.job_totals"
    if _number(connection, totals) != _number(connection, "SELECT count(*) FROM ops.job_runs"):
        yield "the totals are not those of the runs"


_TOLD = """
SELECT string_agg(format('%%s on %%s from %%s, last heart-beat %%s, ended %%s: %%s', number, node, started_at::time,
                         heartbeat_at::time, finished_at::time, coalesce(error, outcome)), '; ' ORDER BY number)
FROM ops.job_attempts WHERE run = %s"""


def overlaps(connection: psycopg.Connection, naps_file: Path) -> Iterator[str]:
    """Each time two processes worked on one run at once, as they say themselves, and what the database says of it."""
    seen: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in naps_file.read_text().splitlines():
        run, attempt, pid, at = line.split()
        seen[run][f"attempt {attempt} in process {pid}"].append(float(at))
    for run, workers in seen.items():
        spans = sorted((min(times), max(times), who) for who, times in workers.items())
        for (began, ended, one), (after, over, other) in itertools.pairwise(spans):
            if after < ended:
                told = connection.execute(_TOLD, (run,)).fetchone()
                yield (
                    f"run {run}: {one} from {_clock(began)} to {_clock(ended)}, {other} from {_clock(after)} "
                    f"to {_clock(over)}; the database: {told[0] if told else 'nothing'}"
                )


def _clock(monotonic: float) -> str:
    """That moment as the database and the logs tell time."""
    return f"{datetime.fromtimestamp(time.time() - time.monotonic() + monotonic, UTC):%H:%M:%S.%f}"


def _number(connection: psycopg.Connection, sql: str) -> int:
    row = connection.execute(sql.encode()).fetchone()
    assert row
    return int(row[0])


def _column(connection: psycopg.Connection, sql: str) -> tuple[float, ...]:
    return tuple(value for (value,) in connection.execute(sql.encode()).fetchall())
