"""Single jobs of a queue, for a person who asks: what they are, where they stand, why they failed. Reads only.

What an application puts into a job is shown redacted: secrets by their names and looks, e-mail addresses masked.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from redis.exceptions import ResponseError

from opslib import redis
from opslib.areas.queues import RIGHTS, Command, Queue, ask
from opslib.errors import NotFoundError, SourceError
from opslib.redact import redact

LISTS = {"waiting": b"wait", "active": b"active", "paused": b"paused"}
SETS = {
    "failed": b"failed",
    "delayed": b"delayed",
    "prioritized": b"prioritized",
    "completed": b"completed",
    "waiting-children": b"waiting-children",
}
STATES = (*LISTS, *SETS)

FIELDS = (
    *("name", "data", "opts", "timestamp", "processedOn", "finishedOn", "failedReason", "stacktrace", "returnvalue"),
    *("progress", "atm", "attemptsMade", "ats", "priority", "delay"),
)
CHUNK = 200
"""Jobs asked for in one round trip."""


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as a person may see it.

    Attributes:
        state: One of `STATES`; `gone` for a hash no structure of the queue names (any more).
        added_at: When it was added.
        started_at: When its last attempt began.
        finished_at: When it completed or failed for good.
        attempts_made: Attempts that ended.
        attempts: How many it has.
        reason: Why it last failed.
        stack: Where, one text per attempt.
    """

    queue: str
    id: str
    name: str
    state: str
    added_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    delay: timedelta | None
    priority: int
    attempts_made: int
    attempts: int
    reason: str | None
    data: Any
    options: Any
    result: Any
    progress: Any
    stack: Sequence[str]


def _view(queue: Queue, id_: bytes, state: str, values: Sequence[bytes | None], *, whole: bool = False) -> JobView:
    field = dict(zip(FIELDS, values, strict=True))
    options = _json(field["opts"])
    stack = _json(field["stacktrace"])
    delay = _number(field["delay"])
    return JobView(
        queue=queue.name,
        id=id_.decode("utf-8", "backslashreplace"),
        name=_text(field["name"]) or "",
        state=state,
        added_at=_time(field["timestamp"]),
        started_at=_time(field["processedOn"]),
        finished_at=_time(field["finishedOn"]),
        delay=timedelta(milliseconds=delay) if delay else None,
        priority=_number(field["priority"]) or 0,
        # `atm` since version 5, `attemptsMade` before.
        attempts_made=_number(field["atm"]) or _number(field["attemptsMade"]) or 0,
        attempts=(options.get("attempts") if isinstance(options, dict) else None) or 1,
        reason=_text(field["failedReason"]),
        data=_json(field["data"]) if whole else redact(_json(field["data"])),
        options=redact(options),
        result=redact(_json(field["returnvalue"])),
        progress=redact(_json(field["progress"])),
        stack=[redact(each) for each in stack] if isinstance(stack, list) else [],
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else str(redact(value))


def _json(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value.decode("utf-8", "backslashreplace")


def _number(value: bytes | None) -> int | None:
    try:
        return None if value is None else int(float(value))
    except (ValueError, OverflowError):
        return None


def _time(value: bytes | None) -> datetime | None:
    ms = _number(value)
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


async def ids(client: redis.Client, queue: Queue, state: str, count: int) -> list[bytes]:
    """The ids of the newest jobs in a state, at most `count`.

    Raises:
        SourceError: The server is away or refuses.
    """
    if state in LISTS:
        command: Command = ("LRANGE", queue.key(LISTS[state]), 0, count - 1)  # new ones come in on the left
    else:
        command = ("ZREVRANGE", queue.key(SETS[state]), 0, count - 1)
    (answer,) = await _told(client, [(queue.key(b"meta"), command)])
    return [id_ for id_ in answer if not id_.startswith(b"0:")]  # up to version 4 a marker lay among the waiting


async def jobs(
    client: redis.Client, queue: Queue, state: str, of: Sequence[bytes], *, whole: bool = False
) -> list[JobView]:
    """These jobs; one that has gone meanwhile is left out.

    Args:
        client: A connection for reading.
        queue: Whose.
        state: The one they are in.
        of: Their ids.
        whole: Their data as it is, for adding it elsewhere and not for showing.

    Raises:
        SourceError: The server is away or refuses.
    """
    found = []
    for start in range(0, len(of), CHUNK):
        chunk = of[start : start + CHUNK]
        answers = await _told(client, [(queue.key(id_), ("HMGET", queue.key(id_), *FIELDS)) for id_ in chunk])
        found += [
            _view(queue, id_, state, values, whole=whole)
            for id_, values in zip(chunk, answers, strict=True)
            if any(values[:4])
        ]
    return found


async def job(client: redis.Client, queue: Queue, id_: str) -> tuple[JobView, list[str]]:
    """One job with its log.

    Raises:
        NotFoundError: There is none of that id.
        SourceError: The server is away or refuses.
    """
    raw = id_.encode()
    at = queue.key(raw)
    probes: list[Command] = [("LPOS", queue.key(key), raw) for key in LISTS.values()]
    probes += [("ZSCORE", queue.key(key), raw) for key in SETS.values()]
    log_key = b"%b:logs" % at
    values, lines, *places = await _told(
        client, [(at, command) for command in (("HMGET", at, *FIELDS), ("LRANGE", log_key, 0, -1), *probes)]
    )
    if not any(values[:4]):
        raise NotFoundError(f"queue {queue.name} has no job {id_}; a completed one is usually removed at once")
    state = next((state for state, place in zip(STATES, places, strict=True) if place is not None), "gone")
    return _view(queue, raw, state, values), [str(redact(line)) for line in lines]


async def mentioning(
    client: redis.Client, queues: Iterable[Queue], text: str, *, newest: int = 1000
) -> AsyncIterator[JobView]:
    """Jobs whose id or data holds `text`, among the newest of each state of each queue.

    Raises:
        SourceError: The server is away or refuses.
    """
    wanted = text.encode()
    for queue in queues:
        for state in STATES:
            of = await ids(client, queue, state, newest)
            for start in range(0, len(of), CHUNK):
                chunk = of[start : start + CHUNK]
                answers = await _told(client, [(queue.key(id_), ("HMGET", queue.key(id_), *FIELDS)) for id_ in chunk])
                for id_, values in zip(chunk, answers, strict=True):
                    if wanted in id_ or wanted in (values[1] or b""):
                        yield _view(queue, id_, state, values)


@dataclass(frozen=True, slots=True)
class Activity:
    """What the events say of the last things done.

    Attributes:
        at: When an attempt last began or ended.
        failed: Was the last end a failure?
    """

    at: datetime | None
    failed: bool


EVENTS = 100  # of each stream, looked at for the last activity: a job leaves four or five


async def activity(client: redis.Client, queues: Sequence[Queue]) -> Mapping[Queue, Activity]:
    """The last activity of each queue.

    Raises:
        SourceError: The server is away or refuses.
    """
    commands: list[tuple[bytes, Command]] = [
        (queue.key(b"meta"), ("XREVRANGE", queue.key(b"events"), "+", "-", "COUNT", EVENTS)) for queue in queues
    ]
    answers = await _told(client, commands)
    return {queue: _activity(entries) for queue, entries in zip(queues, answers, strict=True)}


def _activity(entries: Iterable[Sequence[Any]]) -> Activity:
    at: datetime | None = None
    for id_, fields in entries:
        said = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
        event = said.get(b"event")
        if event in (b"active", b"completed", b"failed", b"delayed", b"stalled"):
            at = at or datetime.fromtimestamp(int(id_.split(b"-")[0]) / 1000, UTC)
        if event in (b"completed", b"failed"):
            return Activity(at, failed=event == b"failed")
    return Activity(at, failed=False)


async def _told(client: redis.Client, commands: Sequence[tuple[bytes, Command]]) -> list[Any]:
    answers = await ask(client, commands)
    for (_, command), answer in zip(commands, answers, strict=True):
        if isinstance(answer, ResponseError):
            raise SourceError(f"Redis refuses {command[0]!r}: {answer}; its user needs {RIGHTS}") from answer
    return answers
