"""Whoever was given up as dead works on nothing: not on what ran, not on what was on its way, not under a new name.

A frozen process is played by holding back what it would read next, while somebody else reaps it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from demo.postgres import PostgresServer
from opslib import runner
from opslib.errors import SourceError
from opslib.jobs.report import Report
from opslib.jobs.spawner import Spawner
from opslib.jobs.store import Store, Taken
from opslib.jobs.worker import Worker
from opslib.postgres import Database
from tests.service import attempt_jobs
from tests.service.attempt_jobs import Params
from tests.service.cluster_kit import TIMING, WAIT, Cluster, eventually, opened

PATIENT = replace(TIMING, beat=0.2, watch=600)
"""Nobody asks about single attempts: what was given up must be known otherwise."""


@pytest.fixture
def cluster(postgres_server: PostgresServer) -> Iterator[Cluster]:
    """On the server all tests share."""
    yield from opened(postgres_server)


class Gate:
    """Holds one reply back.

    Attributes:
        reached: The reply is there, unread.
        open: Set it to let it be read.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self._call: Callable[..., Awaitable[Any]] = getattr(owner, name)
        monkeypatch.setattr(owner, name, self._replacement())

    def _replacement(self) -> Callable[..., Awaitable[Any]]:
        async def held(*arguments: Any) -> Any:
            reply = await self._call(*arguments)
            if reply is not None and not isinstance(reply, float) and not self.reached.is_set():
                self.reached.set()
                await self.open.wait()
            return reply

        return held


async def reaped(cluster: Cluster) -> Any:
    """Somebody else finds every process silent, and ends one attempt of theirs: its run's state now."""
    found = []

    def look() -> bool:
        found.extend(cluster.rows("SELECT state FROM ops.job_reap(0, '{}', '0 seconds')"))
        return found[-1]["state"] is not None  # a process that asks for work at this moment is left alone

    await eventually(look)
    return found[-1]["state"]


def marks(path: Path) -> list[tuple[int, int]]:
    """Which attempts began to work, and in which process."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(attempt), int(pid)) for attempt, pid in map(str.split, lines)]


def gone(pid: int) -> bool:
    """Is that process no more?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize(("owner", "name"), [(Store, "take"), (Spawner, "spawn")])
async def test_what_was_on_its_way_does_not_begin(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    """Frozen with the reply to `job_take` unread, or before the fork: thawed under a new number, it lets go of it."""
    gate = Gate(monkeypatch, owner, name)
    async with cluster.node(timing=PATIENT):
        number = cluster.enqueue(what="mark", path=tmp_path / "marks")
        await asyncio.wait_for(gate.reached.wait(), WAIT)
        (before,) = cluster.rows("SELECT worker FROM ops.job_workers")
        assert await reaped(cluster) == "QUEUED"
        await eventually(lambda: cluster.rows("SELECT 1 FROM ops.job_workers WHERE worker > %s", before["worker"]))
        gate.open.set()
        row = await cluster.state(number, "SUCCESS")
        assert row["attempt"] == 2
    assert [attempt for attempt, _ in marks(tmp_path / "marks")] == [2], "two processes worked on one run"
    attempts = cluster.rows("SELECT lost, refused FROM ops.job_attempts ORDER BY attempt")
    assert attempts == [{"lost": True, "refused": None}, {"lost": False, "refused": None}]


async def test_whoever_hears_it_first(cluster: Cluster, tmp_path: Path) -> None:
    """Asking for work says it as well as the heart-beat: what runs ends at once, and is not renewed with the next."""
    async with cluster.node(timing=replace(PATIENT, beat=600)):
        cluster.enqueue(what="mark", path=tmp_path / "marks", seconds=60)
        await eventually(lambda: marks(tmp_path / "marks"))
        ((_, pid),) = marks(tmp_path / "marks")
        assert await reaped(cluster) == "QUEUED"
        await eventually(lambda: gone(pid))
        assert cluster.rows("SELECT 1 FROM ops.job_workers") == []


async def test_a_slow_reply_is_not_a_lost_one(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt nobody here knows of is given back, but not while the reply that tells of it may be on its way."""
    gate = Gate(monkeypatch, Store, "take")
    async with cluster.node(timing=replace(PATIENT, settle=0, reap=0.05)):
        number = cluster.enqueue()
        await asyncio.wait_for(gate.reached.wait(), WAIT)
        cluster.rows("UPDATE ops.job_attempts SET started_at = now() - interval '1 minute' RETURNING 1")
        await asyncio.sleep(1)  # twenty reapers' rounds
        gate.open.set()
        assert (await cluster.state(number, "SUCCESS"))["attempt"] == 1


async def test_a_lost_reply(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun in the database, never heard of: our own reaper gives it back."""
    take = Store.take
    lost = []

    async def losing(*arguments: Any) -> Taken | float | None:
        reply = await take(*arguments)
        if isinstance(reply, Taken) and not lost:
            lost.append(reply.attempt)
            raise SourceError("the connection broke")
        return reply

    monkeypatch.setattr(Store, "take", losing)
    async with cluster.node(timing=replace(PATIENT, settle=0, reap=0.05)):
        number = cluster.enqueue()
        await eventually(lambda: lost)
        cluster.rows("UPDATE ops.job_attempts SET started_at = now() - interval '1 minute' RETURNING 1")
        assert (await cluster.state(number, "SUCCESS"))["attempt"] == 2


@pytest.mark.parametrize("what", ["tidy", "stubborn"])
async def test_given_back_when_it_is_over(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Told to leave: the run goes back once its process is gone, or the next one would find it tidying up."""
    path = tmp_path / "file"
    release = Store.release
    over: list[bool] = []

    async def watching(*arguments: Any) -> None:
        text = path.read_text()
        if text != "tidied":
            await eventually(lambda: gone(int(text.split()[0])))
        over.append(True)
        await release(*arguments)

    monkeypatch.setattr(Store, "release", watching)
    async with cluster.node(timing=replace(PATIENT, drain=0.1, kill_grace=0.5)):
        number = cluster.enqueue(what=what, path=path)
        await eventually(lambda: path.exists() and path.read_text())
    assert cluster.run(number)["error"] == "the process that ran it was told to leave"
    assert cluster.run(number)["state"] == "QUEUED"
    assert over == [True]


def test_in_the_foreground_before_the_first_heart_beat(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds its run from the moment it has a number, however late its first heart-beat is answered."""
    beat = Store.beat
    late = time.monotonic() + 1

    async def slow(*arguments: Any) -> bool:
        if time.monotonic() < late:
            raise SourceError("Postgres did not answer")
        return await beat(*arguments)

    monkeypatch.setattr(Store, "beat", slow)
    job = attempt_jobs.JOBS["once"]
    for _ in range(2):
        ended = runner.execute(
            cluster.settings, job, Params(), triggered_by="anna", started=lambda _: None, timing=PATIENT
        )
        assert ended == "SUCCESS"


async def test_told_to_leave_at_the_moment_work_comes(cluster: Cluster) -> None:
    """A notification and the end in one breath: it leaves all the same."""
    database = Database(cluster.owner, application_name="test")
    await database.open()
    store = Store(database)
    worker = Worker(cluster.settings, {}, store, Report({}, store, "test"), PATIENT, queues={"default": 1})
    try:
        for _ in range(2):
            pulling = asyncio.create_task(worker.pull())
            await asyncio.sleep(0.5)
            worker.wake.set()
            pulling.cancel()
            done, _ = await asyncio.wait([pulling], timeout=20)
            assert done, "it goes on for ever"
    finally:
        pulling.cancel()
        await worker.drain(0)
        await database.close()


async def test_told_to_leave_and_not_heard() -> None:
    """A loop that swallows its cancellation, as the pool does at the moment it has a connection, is told again."""
    swallowed = []

    async def deaf() -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            swallowed.append(True)
            await asyncio.sleep(600)

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await asyncio.wait_for(runner._cancel([task]), WAIT)
    assert swallowed
    assert task.cancelled()
