"""What an operator does to queues that Node made, 5.63.0 and the newest: exactly that, and each of it remembered."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from redis import Redis

from tests.service.queue_kit import VERSIONS, Bullmq, install

OPSCTL = Path(sys.executable).parent / "opsctl"
QUEUE = "fulfillment-queue"
SECRET = "planted-in-the-payload"


@pytest.fixture(scope="session", params=VERSIONS)
def folder(request: pytest.FixtureRequest) -> Path:
    """Where that version of BullMQ is installed."""
    return install(request.param)


@pytest.fixture
def bullmq(folder: Path, redis: str) -> Bullmq:
    """BullMQ on an empty Redis."""
    return Bullmq(folder, redis)


@pytest.fixture
def operator(database: str) -> Iterator[str]:
    """The DSN of a person who may all."""
    name = f"t_super_{uuid4().hex[:8]}"
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {name} LOGIN IN ROLE ops_super".encode())
        yield make_conninfo(database, user=name)
        owner.execute(f"DROP ROLE {name}".encode())


def opsctl(dsn: str, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The installed command, without a terminal."""
    settings = {"PATH": os.environ["PATH"], "DATABASE_URL": dsn, "REDIS_URL": url}
    return subprocess.run(
        [OPSCTL, "queues", *arguments],
        env=settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def told(dsn: str, url: str, *arguments: str) -> Any:
    """What it says in JSON."""
    ended = opsctl(dsn, url, *arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def outcomes(dsn: str, outcome: str) -> list[dict[str, Any]]:
    """The audit events of that outcome."""
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        return connection.execute(
            "SELECT * FROM ops.audit_events WHERE outcome = %s ORDER BY seq", (outcome,)
        ).fetchall()


async def test_retry_of_seven_of_fifty_runs_seven(bullmq: Bullmq, operator: str) -> None:
    """Those seven run again, the other 43 stay as they are, and there are seven audit events, then eight."""
    async with bullmq.playing("bury", queue=QUEUE, jobs=50, secret=SECRET) as line:
        await line()
        with Redis.from_url(bullmq.url, decode_responses=True) as redis:
            before = {job: redis.hgetall(f"bull:{QUEUE}:{job}") for job in redis.zrange(f"bull:{QUEUE}:failed", 0, -1)}
            oldest = list(before)[:7]
            assert len(before) == 50
            ended = await asyncio.to_thread(
                opsctl,
                operator,
                bullmq.url,
                "retry",
                QUEUE,
                "--all",
                "--limit",
                "7",
                "--reason",
                "503 is over",
                "--yes",
            )
            assert (ended.returncode, ended.stdout) == (0, "retried: 7\n"), ended.stderr
            ran = sorted([(await line())["id"] for _ in range(7)])
            assert ran == sorted(oldest)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(line(), 1)
            left = {job: redis.hgetall(f"bull:{QUEUE}:{job}") for job in redis.zrange(f"bull:{QUEUE}:failed", 0, -1)}
        assert left == {job: fields for job, fields in before.items() if job not in oldest}
        events = outcomes(operator, "allowed")
        assert [event["target"] for event in events] == [f"{QUEUE}/{job}" for job in oldest]
        assert {event["reason"] for event in events} == {"503 is over"}
        assert SECRET not in str(outcomes(operator, "intent") + events)
        again = await asyncio.to_thread(
            opsctl, operator, bullmq.url, "retry", QUEUE, next(iter(left)), "--reason", "one more", "--yes"
        )
        assert again.returncode == 0, again.stderr
        assert (await line())["id"] == next(iter(left))
        assert len(outcomes(operator, "allowed")) == 8


async def test_retry_where_the_reason_says_so(bullmq: Bullmq, operator: str) -> None:
    """Only those whose reason holds the text; nothing at all without a reason of the operator's, without --yes, dry."""
    async with bullmq.playing("bury", queue=QUEUE, jobs=6, secret=SECRET) as line:
        await line()
        retry = ("retry", QUEUE, "--all", "--where", "reason~OUT OF stock")
        for more, code in (((), 3), (("--reason", "x"), 3), (("--reason", "x", "--dry-run"), 0)):
            ended = await asyncio.to_thread(opsctl, operator, bullmq.url, *retry, *more)
            assert ended.returncode == code, ended.stderr
            assert "retry 3 of" in ended.stderr
        assert len(outcomes(operator, "refused")) == 2
        assert outcomes(operator, "allowed") == []
        ended = await asyncio.to_thread(opsctl, operator, bullmq.url, *retry, "--reason", "restocked", "--yes")
        assert ended.stdout == "retried: 3\n", ended.stderr
        assert sorted([(await line())["id"] for _ in range(3)]) == ["job-0", "job-2", "job-4"]
        for wrong, code in ((("job-0", "--all"), 2), (("job-99",), 4), ((), 2), (("--all", "--where", "age~1"), 2)):
            ended = await asyncio.to_thread(
                opsctl, operator, bullmq.url, "retry", QUEUE, *wrong, "--reason", "x", "--yes"
            )
            assert ended.returncode == code, ended.stderr


async def test_a_failed_job_is_shown_without_its_secrets(bullmq: Bullmq, operator: str) -> None:
    """In lists and alone: reason, attempts and stack; data redacted, the address masked. Workers and state beside."""
    async with bullmq.playing("bury", queue=QUEUE, jobs=2, secret=SECRET) as line:
        await line()
        (queue,) = await asyncio.to_thread(told, operator, bullmq.url, "list")
        assert (queue["queue"], queue["failed"], queue["state"], queue["is_paused"]) == (QUEUE, 2, "error", False)
        assert queue["workers"] == 1
        assert queue["version"].startswith("bullmq:")
        newest, _ = await asyncio.to_thread(told, operator, bullmq.url, "failed", QUEUE)
        assert (newest["id"], newest["reason"], newest["attempts_made"]) == ("job-1", "upstream answered 503", 1)
        assert newest["data"] == {"n": 1, "secret": "***", "email": "a***@example.com"}
        alone = await asyncio.to_thread(told, operator, bullmq.url, "job", QUEUE, "job-1")
        assert alone["state"] == "failed"
        assert "upstream answered 503" in alone["stack"][0]
        assert SECRET not in json.dumps(alone)
    (queue,) = await asyncio.to_thread(told, operator, bullmq.url, "list")
    assert queue["state"] == "stopped"
    assert (await asyncio.to_thread(opsctl, operator, bullmq.url, "show", "nowhere")).returncode == 4


async def test_pause_add_resume_drain_remove_and_clean(bullmq: Bullmq, operator: str) -> None:
    """Each does what it says on a queue of Node's; what is destructive wants the queue's name."""

    async def act(*arguments: str, code: int = 0) -> str:
        ended = await asyncio.to_thread(opsctl, operator, bullmq.url, *arguments, "--reason", "a test")
        assert ended.returncode == code, ended.stderr
        return ended.stdout

    async with bullmq.playing("bury", queue=QUEUE, jobs=4, secret=SECRET) as line:
        await line()
        with Redis.from_url(bullmq.url, decode_responses=True) as redis:

            async def now() -> dict[str, Any]:
                (queue,) = await asyncio.to_thread(told, operator, bullmq.url, "list")
                return dict(queue)

            await act("pause", QUEUE, "--yes")
            assert (await now())["is_paused"] is True
            add = ("add", QUEUE, "by-hand", "--data", '{"n": 1}', "--yes")
            assert await act(*add, "--job-id", "mine") == "added: mine\n"
            known = await act(*add, "--job-id", "mine")
            assert known.startswith("known: mine is ")
            assert len(outcomes(operator, "allowed")) == 2, "the pause and one job"
            await act(*add, "--priority", "high", "--job-id", "urgent", "--attempts", "5", "--backoff", "100")
            await act(*add, "--delay", "3600000", "--job-id", "later")
            assert redis.hget(f"bull:{QUEUE}:urgent", "priority") == "1"
            state = await now()
            assert (state["waiting"] + state["paused"], state["prioritized"], state["delayed"]) == (1, 1, 1)
            dry = await asyncio.to_thread(opsctl, operator, bullmq.url, "drain", QUEUE, "--delayed", "--dry-run")
            assert "1 waiting, 1 prioritized, 1 delayed jobs" in dry.stderr
            await act("drain", QUEUE, code=3)
            await act("drain", QUEUE, "--confirm", "another", code=3)
            await act("drain", QUEUE, "--confirm", QUEUE)
            state = await now()
            assert (state["waiting"] + state["paused"], state["prioritized"], state["delayed"]) == (0, 0, 1)
            await act("resume", QUEUE)
            await act("promote", QUEUE, "mine", code=4)
            await act("promote", QUEUE, "later")
            failed = redis.zrange(f"bull:{QUEUE}:failed", 0, -1)
            await act("remove", QUEUE, failed[0], "--confirm", QUEUE)
            assert not redis.exists(f"bull:{QUEUE}:{failed[0]}")
            assert await act("clean", QUEUE, "--state", "failed", "--older", "1", "--confirm", QUEUE) == "removed: 0\n"
            cleaned = await act("clean", QUEUE, "--state", "failed", "--older", "0", "--limit", "2", "--confirm", QUEUE)
            assert cleaned == "removed: 2\n"


async def test_dead_letters_go_back_once(bullmq: Bullmq, operator: str) -> None:
    """Each with its data as it was, and gone from where it lay."""
    async with bullmq.playing("bury", queue=QUEUE, jobs=1, secret=SECRET) as line:
        await line()
        add = (
            "add",
            "dead-letters",
            "reserve",
            "--data",
            json.dumps({"n": 0, "secret": SECRET}),
            "--reason",
            "x",
            "--yes",
        )
        assert (await asyncio.to_thread(opsctl, operator, bullmq.url, *add)).returncode == 4, "no such queue yet"
        with Redis.from_url(bullmq.url, decode_responses=True) as redis:
            redis.hset("bull:dead-letters:meta", "version", redis.hget(f"bull:{QUEUE}:meta", "version"))
            ended = await asyncio.to_thread(opsctl, operator, bullmq.url, *add, "--job-id", "lost")
            assert ended.returncode == 3, "nobody works there"
            ended = await asyncio.to_thread(opsctl, operator, bullmq.url, *add, "--job-id", "lost", "--force")
            assert ended.returncode == 0, ended.stderr
            move = ("requeue-dead", "dead-letters", QUEUE, "--reason", "fixed", "--yes")
            ended = await asyncio.to_thread(opsctl, operator, bullmq.url, *move)
            assert ended.stdout == "requeued: 1\n", ended.stderr
            assert f"requeue 1 of dead-letters to {QUEUE}" in ended.stderr
            assert outcomes(operator, "allowed")[-1]["target"] == "dead-letters/lost"
            assert not redis.exists("bull:dead-letters:lost")
            moved = "requeued-dead-letters-lost"
            assert json.loads(redis.hget(f"bull:{QUEUE}:{moved}", "data")) == {"n": 0, "secret": SECRET}
            assert (await asyncio.to_thread(opsctl, operator, bullmq.url, *move)).returncode == 4


async def test_a_version_nobody_proved_is_not_written_to(bullmq: Bullmq, operator: str) -> None:
    """Unless --force says so."""
    async with bullmq.playing("bury", queue=QUEUE, jobs=1, secret=SECRET) as line:
        await line()
        with Redis.from_url(bullmq.url) as redis:
            redis.hset(f"bull:{QUEUE}:meta", "version", "bullmq:9.0.0")
        retry = ("retry", QUEUE, "job-0", "--reason", "x", "--yes")
        ended = await asyncio.to_thread(opsctl, operator, bullmq.url, *retry)
        assert (ended.returncode, "9.0.0" in ended.stderr, "--force" in ended.stderr) == (3, True, True)
        assert [(event["target"], "9.0.0" in event["error"]) for event in outcomes(operator, "refused")] == [
            (QUEUE, True)
        ]
        assert outcomes(operator, "failed") == []
        ended = await asyncio.to_thread(opsctl, operator, bullmq.url, *retry, "--force")
        assert ended.returncode == 0, ended.stderr
        assert (await line())["id"] == "job-0"
