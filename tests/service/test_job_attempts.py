"""One attempt, in a process of its own: what it is given, how it ends, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from demo.processes import wait_until
from opslib import settings
from opslib.jobs.attempt import Attempt, Ending, Seat
from opslib.jobs.child import Assignment, Link
from opslib.jobs.spawner import Spawner
from opslib.jobs.store import Taken
from opslib.jobs.timing import Timing
from tests.service import attempt_jobs

TIMING = Timing(kill_grace=0.5)
WAIT = 60.0
SECRET = {"NOWPAYMENTS_API_KEY": "hunter2-planted"}
ASSIGNMENT = Assignment("a:B", 1, "a", {}, None, 1, "me", settings.load(SECRET), 30, 0)


@pytest.fixture
async def spawner() -> AsyncIterator[Spawner]:
    """A nursery with the jobs loaded."""
    opened = Spawner(["tests.service.attempt_jobs"])
    yield opened
    opened.stop()


async def begin(
    spawner: Spawner,
    name: str = "once",
    *,
    lease: float = 100,
    early: signal.Signals | None = None,
    timing: Timing = TIMING,
    **params: Any,
) -> tuple[Attempt, asyncio.Task[Ending | None]]:
    """An attempt on its way, ours for so many seconds; `early` is sent to its process before it knows its job."""
    job = getattr(attempt_jobs, name.upper())
    taken = Taken(7, 1, 3, name, job.queue, None, params, "anna", job.timeout)
    assignment = Assignment(
        target=attempt_jobs.JOBS[name],
        run=3,
        job=name,
        params=params,
        slot=None,
        attempt=1,
        triggered_by="anna",
        settings=settings.load({"KINGUIN_BASE_URL": "http://127.0.0.1:1", "NOWPAYMENTS_API_KEY": "hunter2-planted"}),
        beat=0.2,
        lease=time.monotonic() + lease,
    )
    child = await spawner.spawn()
    if early is not None:
        child.signal(early)
    attempt = Attempt(taken, Seat(1, assignment.lease), child, timing)
    task = asyncio.create_task(attempt.run(assignment))
    await asyncio.sleep(0)  # the assignment is the first it hears
    return attempt, task


async def ends(spawner: Spawner, name: str = "once", **params: Any) -> Ending:
    """How it ended."""
    _, task = await begin(spawner, name, **params)
    ending = await task
    assert ending is not None
    return ending


def alive(pid: int) -> bool:
    """Is it a process that runs?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_process_and_group_of_its_own(spawner: Spawner) -> None:
    """It leads its own session; nothing it was given is in its command line; the next one is another process."""
    first, second = [await ends(spawner, password="in-the-params") for _ in range(2)]
    assert first.outcome == second.outcome == "SUCCESS"
    assert first.result["pid"] == first.result["group"] == first.result["session"] != os.getpid()
    assert first.result["pid"] != second.result["pid"]
    assert "in-the-params" not in str(first.result["argv"])
    assert "hunter2-planted" not in str(first.result["argv"])


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("fail", "it never works"),
        ("crash", "ValueError: *** is wrong"),
        ("die", "its process was killed by SIGSEGV before it could say how it went"),
        ("exit", "SystemExit: 0"),
    ],
)
async def test_each_way_to_fail(spawner: Spawner, what: str, error: str) -> None:
    """What a job raises is how it ended, without its secrets; what kills it, too."""
    ending = await ends(spawner, what=what)
    assert (ending.outcome, ending.error, ending.result) == ("FAILED", error, None)
    assert "hunter2" not in str(ending)
    assert (what == "die") != any("attempt_jobs.py" in frame for frame in ending.trace)


async def test_parameters_that_are_not_its_own(spawner: Spawner) -> None:
    """A run queued under another release says what is wrong, and not with which value."""
    ending = await ends(spawner, seconds="in-the-params")
    assert ending.error is not None
    assert ending.error.startswith("the parameters are not those of once (seconds: Input should be a valid number")
    assert "in-the-params" not in ending.error


async def test_settings_that_are_missing(spawner: Spawner) -> None:
    """It says which."""
    ending = await ends(spawner, "lacking")
    assert ending.error is not None
    assert ending.error.startswith("KINGUIN_API_KEY is not set")


async def test_timeout_lets_it_tidy_up(spawner: Spawner, tmp_path: Path) -> None:
    """SIGTERM first: `finally` runs, then it is over."""
    began = time.monotonic()
    patient = Timing(kill_grace=WAIT)
    ending = await ends(spawner, "short", timing=patient, what="tidy", path=str(tmp_path / "file"))
    assert ending == Ending("FAILED", error="it took longer than its timeout of 3 s", timed_out=True)
    assert (tmp_path / "file").read_text() == "tidied"
    assert 3 <= time.monotonic() - began < WAIT, "it waited for a process that was gone"


async def test_timeout_of_one_that_will_not(spawner: Spawner, tmp_path: Path) -> None:
    """SIGKILL after that, for it and whatever it started."""
    ending = await ends(spawner, "short", what="stubborn", path=str(tmp_path / "pids"))
    assert ending.timed_out
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    wait_until(lambda: not any(map(alive, pids)), WAIT, "the group to be gone")


async def test_what_it_leaves_running_is_ended(spawner: Spawner, tmp_path: Path) -> None:
    """A child of the job's own dies with the attempt, however that ends."""
    attempt, task = await begin(spawner, what="stubborn", path=str(tmp_path / "pids"))
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():  # noqa: ASYNC110 - a file
        await asyncio.sleep(0.02)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    attempt.drop()
    assert await task is None
    wait_until(lambda: not any(map(alive, pids)), WAIT, "the group to be gone")


async def test_cancelled(spawner: Spawner) -> None:
    """It hears of it and stops where it likes to."""
    attempt, task = await begin(spawner, seconds=20)
    await asyncio.sleep(0.3)
    attempt.cancel()
    ending = await asyncio.wait_for(task, WAIT)
    assert ending == Ending("CANCELLED", error="run 3 of once was cancelled")


async def test_progress_once_a_second(spawner: Spawner) -> None:
    """A hundred words a second become one, the last of them; its secrets hidden."""
    attempt, task = await begin(spawner, what="count", seconds=1.5)
    seen = []
    began = time.monotonic()
    while not task.done():
        if (progress := attempt.progress()) is not None:
            seen.append(progress)
        await asyncio.sleep(0.01)
    if (progress := attempt.progress()) is not None:
        seen.append(progress)
    assert 2 <= len(seen) <= time.monotonic() - began + 2
    assert seen[-1] == {"done": 149, "total": 150, "unit": "steps", "note": "with ***"}


async def test_signs_of_life(spawner: Spawner) -> None:
    """A working process gives them; a frozen one does not, and again when it is thawed."""
    attempt, task = await begin(spawner, seconds=100)
    attempt.lives()  # once without asking
    await _lives(attempt)
    os.killpg(attempt._child.pid, signal.SIGSTOP)
    await asyncio.sleep(0.1)
    attempt.lives()
    await asyncio.sleep(0.5)
    assert not attempt.lives()
    os.killpg(attempt._child.pid, signal.SIGCONT)
    await _lives(attempt)
    attempt.drop()
    await task


async def _lives(attempt: Attempt) -> None:
    async with asyncio.timeout(WAIT):
        while not attempt.lives():  # noqa: ASYNC110 - what it says is not ours to set an event
            await asyncio.sleep(0.05)


async def test_a_lease_that_ends(spawner: Spawner) -> None:
    """Not renewed in time, it kills itself and what it started: somebody else may have the run by now."""
    attempt, task = await begin(spawner, seconds=100)
    attempt.lease(time.monotonic() + 2)
    attempt.lease(time.monotonic() + 100)
    await asyncio.sleep(2.5)
    assert not task.done(), "it was renewed"
    attempt.lease(time.monotonic() + 1)
    assert await asyncio.wait_for(task, WAIT) is None
    assert attempt.lost


async def test_a_lease_that_was_over_before_it_began(spawner: Spawner, tmp_path: Path) -> None:
    """Frozen between the fork and its first step: it does nothing at all, for somebody else may have the run."""
    for _ in range(2):
        attempt, task = await begin(spawner, lease=-1, what="mark", path=str(tmp_path / "file"))
        assert await asyncio.wait_for(task, WAIT) is None
        assert attempt.lost
        assert not (tmp_path / "file").exists()


def test_between_two_steps_it_waits_for_word() -> None:
    """A lease that is over keeps it where it is, however slow the thread is that renews or ends it."""
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor() as pool:
        link = Link(theirs, replace(ASSIGNMENT, lease=time.monotonic() - 1))
        for _ in range(2):
            asked = pool.submit(link.is_cancelled)
            assert not wait([asked], timeout=1.5).done
            link._lease = time.monotonic() + 30
            assert asked.result(WAIT) is False
            link._lease = time.monotonic() - 1


async def test_told_to_end_before_it_began(spawner: Spawner, tmp_path: Path) -> None:
    """A process just forked, not yet a leader, knowing no job, is reached too: SIGTERM is said, SIGKILL ends it."""
    for _ in range(2):
        _, told = await begin(spawner, early=signal.SIGTERM, what="mark", path=str(tmp_path / "file"))
        ending = await asyncio.wait_for(told, WAIT)
        assert ending is not None
        assert ending.terminated
        _, killed = await begin(spawner, early=signal.SIGKILL, what="mark", path=str(tmp_path / "file"))
        ending = await asyncio.wait_for(killed, WAIT)
        assert ending is not None
        assert ending.error == "its process was killed by SIGKILL (out of memory?) before it could say how it went"
    assert not (tmp_path / "file").exists()


async def test_a_parent_that_is_gone(spawner: Spawner) -> None:
    """The other end of its channel closes: it dies at once."""
    attempt, task = await begin(spawner, seconds=20)
    await asyncio.sleep(0.3)
    pid = attempt._child.pid
    attempt._child.writer.transport.abort()  # as a kill -9 would, with words of the child's unread
    await asyncio.sleep(0.1)
    wait_until(lambda: not alive(pid), WAIT, "the child to notice")
    await asyncio.wait([task])


async def test_a_nursery_that_is_gone(spawner: Spawner) -> None:
    """Its children work on, and the next attempt finds another nursery."""
    _, working = await begin(spawner, seconds=1)
    await asyncio.sleep(0.2)
    assert spawner._process
    spawner._process.kill()
    await asyncio.sleep(0.2)
    assert (await ends(spawner)).outcome == "SUCCESS"
    ending = await working
    assert ending is not None
    assert ending.outcome == "SUCCESS"


async def test_a_fork_is_cheap(spawner: Spawner) -> None:
    """The best of twenty takes milliseconds, where an interpreter of its own takes a third of a second at best."""
    await ends(spawner)
    ours, others = [], []
    for n in range(20):
        began = time.monotonic()
        await ends(spawner)
        ours.append(time.monotonic() - began)
        if n % 5 == 0:
            began = time.monotonic()
            interpreter = await asyncio.create_subprocess_exec(sys.executable, "-c", "import opslib.jobs.child")
            assert await interpreter.wait() == 0
            others.append(time.monotonic() - began)
    assert min(ours) < min(others) / 3


def test_the_assignment_hides_nothing_it_needs() -> None:
    """Secrets arrive as secrets."""
    packed = ASSIGNMENT.packed()
    assert b"hunter2-planted" in packed
    assert "hunter2-planted" not in repr(replace(Taken(1, 1, 1, "a", "q", None, {}, "me", 1), params={}))
