"""How many jobs of each queue are in which state right now, and how long the oldest has been waiting.

Few scripts read many queues (`timed_script`): many queues cost few commands, and while Redis works at one we look at
what the one before said. Where scripts cannot run (Redis before 7 has no read-only ones, an ACL may refuse them)
`queue_state_plain` reads the same rows by plain commands. Both write nothing: they work for a user without `@write`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import structlog
from redis.asyncio import RedisCluster

from opslib import redis
from opslib.areas import queue_state_plain, timed_script
from opslib.areas.queues import RIGHTS, Job, Queue, ask, slots
from opslib.errors import SourceError

log = structlog.get_logger()

QUEUES, JOBS = 40, 150  # per script at most: what it can read in its time at best
FIXED = 11  # what stands in a row before the jobs
DUE = ("timestamp", "opts", "processedOn")  # of `Job`'s fields those that say since when a job has been ready
DELAYED_SCALE = 4096  # a delayed job's score is its due time in ms times this, plus a number for the order

# For each `<queue>:meta` a row: eight counts, paused, worker, score of the next delayed; then the ids of the jobs that
# may be the oldest waiting: both ends of `wait` and `paused` (new jobs come in on the left, LIFO and stalled ones on
# the right), the next prioritized job and the first of the lowest priority (which starves first).
# A queue that has nothing, not even its meta, answers nil. One with a key of another type in the way answers its error
# as text, and does not spoil the batch.
QUEUE_SCRIPT = (
    """
local call = redis.call
local function row_of(base)
  local meta, wait, paused = base .. 'meta', base .. 'wait', base .. 'paused'
  local delayed, prioritized = base .. 'delayed', base .. 'prioritized'
  local waiting, aside = call('LLEN', wait), call('LLEN', paused)
  local later, ranked = call('ZCARD', delayed), call('ZCARD', prioritized)
  local row = {
    waiting, call('LLEN', base .. 'active'), call('ZCARD', base .. 'completed'), call('ZCARD', base .. 'failed'),
    later, aside, ranked, call('ZCARD', base .. 'waiting-children'),
    call('HEXISTS', meta, 'paused'), call('EXISTS', base .. 'stalled-check'),
    later > 0 and call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2],
  }
  if waiting > 0 then row[#row + 1] = call('LINDEX', wait, -1) end
  if waiting > 1 then row[#row + 1] = call('LINDEX', wait, 0) end
  if aside > 0 then row[#row + 1] = call('LINDEX', paused, -1) end
  if aside > 1 then row[#row + 1] = call('LINDEX', paused, 0) end
  if ranked > 0 then row[#row + 1] = call('ZRANGE', prioritized, 0, 0)[1] end
  if ranked > 1 then
    local last = tonumber(call('ZRANGE', prioritized, -1, -1, 'WITHSCORES')[2])
    row[#row + 1] = call('ZRANGEBYSCORE', prioritized, last - last % 4294967296, '+inf', 'LIMIT', 0, 1)[1]
  end
  for i = 1, 8 do
    if row[i] > 0 then return row end
  end
  return call('EXISTS', meta) > 0 and row
end
local function read(key)
  local ok, row = pcall(row_of, string.sub(key, 1, -5))
  return ok and row or not ok and (type(row) == 'table' and row.err or tostring(row))
end
"""
    + timed_script.TIMED
)

# For each job's key those fields; nil for one that cannot be read.
JOB_SCRIPT = (
    """
local function read(key)
  local row = redis.pcall('HMGET', key, DUE)
  return not row.err and row
end
""".replace("DUE", ", ".join(f"'{field}'" for field in DUE))
    + timed_script.TIMED
)


class QueueState(NamedTuple):
    """One queue at one moment.

    Attributes:
        counts: Jobs waiting, active, completed, failed, delayed, paused, prioritized, waiting for children.
        is_paused: 1 if the queue is paused, else 0.
        worker_present: 1 if a worker has checked for stalled jobs within half a minute, else 0.
        next_delayed: When the next delayed job is due, Unix seconds; None if there is none.
        ready_since: Since when the oldest job has been waiting, Unix ms; None if nobody knows, or none waits.
    """

    counts: tuple[int, ...]
    is_paused: int
    worker_present: int
    next_delayed: float | None
    ready_since: int | None


@dataclass(frozen=True, slots=True)
class Reading:
    """All queues at one moment.

    Attributes:
        now: Unix seconds by the server's clock, or by ours where the ACL hides it.
        queues: By queue; without those that are gone or cannot be read.
    """

    now: float
    queues: dict[Queue, QueueState]


class Heard(Protocol):
    """What the events say."""

    def up_to(self, queue: Queue) -> str | None:
        """The last event read; what `ready_since` says of this queue is the same until there is another."""

    def ready_since(self, queue: Queue, jobs: Sequence[bytes]) -> list[int | None]:
        """Since when each of these jobs has been ready for a worker, Unix ms, if the events say it."""


@dataclass(slots=True)
class _Last:
    """What was read of a queue the last time: as long as nothing changes there is nothing to work out.

    Attributes:
        row: As the server gave it.
        heard: The last event then.
        since: By job, what `ready_since` or its hash said.
        state: What came of it.
    """

    row: list[Any]
    heard: str | None
    since: dict[bytes, int | None]
    state: QueueState


class StateReader:
    """Reads the state of queues.

    Args:
        client: A connection of its own.
        heard: What the events say of jobs. Of those they say nothing of the hash tells; of those put back in line by
            hand it does not.
    """

    def __init__(self, client: redis.Client, heard: Heard) -> None:
        self._client = client
        self._heard = heard
        self._last: dict[Queue, _Last] = {}
        self._scripts = True
        self._unreadable: set[Queue] = set()

    async def read(self, queues: Sequence[Queue]) -> Reading:
        """Every queue as it is now.

        Raises:
            SourceError: The server is away, or lets us read nothing.
        """
        last: dict[Queue, _Last] = {}
        unreadable: dict[Queue, bytes] = {}

        def take(queue: Queue, row: Any) -> None:
            if isinstance(row, list):
                last[queue] = self._take(queue, row)
            elif isinstance(row, bytes):
                unreadable[queue] = row

        try:
            clock = await self._rows(queues, take)
            await self._ask_hashes(last)
        except SourceError:
            self._scripts = True  # the server that comes back may be another one
            raise
        self._last = last
        for queue in unreadable.keys() - self._unreadable:
            log.warning("queue_unreadable", queue=queue.name, error=unreadable[queue].decode("utf-8", "replace"))
        self._unreadable = set(unreadable)
        if unreadable and not last:
            error = next(iter(unreadable.values())).decode("utf-8", "replace")
            raise SourceError(f"Redis lets us read no queue: {error}; its user needs {RIGHTS}")
        return Reading(_seconds(clock), {queue: last[queue].state for queue in queues if queue in last})

    def _take(self, queue: Queue, row: list[Any]) -> _Last:
        before = self._last.get(queue)
        heard = self._heard.up_to(queue)
        if before is not None and before.row == row and before.heard == heard:
            return before
        jobs = row[FIXED:]
        since = dict(zip(jobs, self._heard.ready_since(queue, jobs), strict=True))
        if before is not None:
            for job, at in since.items():
                if at is None:
                    since[job] = before.since.get(job)
        return _Last(row, heard, since, _state(row, since.values()))

    async def _ask_hashes(self, last: Mapping[Queue, _Last]) -> None:
        """Of jobs the events say nothing of, the hash tells since when they have been ready. It is asked once."""
        unknown = [
            (queue, job)
            for queue, each in last.items()
            if each is not (before := self._last.get(queue))
            for job, at in each.since.items()
            if at is None and (before is None or job not in before.since)
        ]
        for (queue, name), fields in zip(unknown, await self._jobs(unknown), strict=True):
            job = Job.parse((None, *fields, None)) if isinstance(fields, list) else None
            if job is not None and job.due is not None:
                each = last[queue]
                each.since[name] = max(job.due, job.processed_on or 0)
                each.state = _state(each.row, each.since.values())

    async def _rows(self, queues: Sequence[Queue], take: Callable[[Queue, Any], None]) -> Any:
        """Give `take` per queue a row, None if it is gone, or an error's text; returns the server's time."""
        if self._scripts and queues:  # without any it is asked for its time all the same: is it there?
            groups = [[(queue.key(b"meta"), queue) for queue in together] for together in slots(self._client, queues)]
            try:
                return await timed_script.run(self._client, QUEUE_SCRIPT, groups, take, most=QUEUES)
            except timed_script.NoScriptsError:
                self._scripts = False
                log.info("queue_scripts_refused", instead="plain commands")
        (clock,) = await ask(self._client, [(b"", ("TIME",))])
        for queue, row in (await queue_state_plain.read(self._client, queues)).items():
            take(queue, row)
        return clock

    async def _jobs(self, jobs: Sequence[tuple[Queue, bytes]]) -> list[Any]:
        """`DUE` of jobs; no list in the place of one that cannot be read."""
        if not jobs:
            return []
        if self._scripts and not isinstance(self._client, RedisCluster):
            found: list[Any] = [None] * len(jobs)
            keys = [(queue.key(job), number) for number, (queue, job) in enumerate(jobs)]
            with contextlib.suppress(timed_script.NoScriptsError):
                await timed_script.run(self._client, JOB_SCRIPT, [keys], found.__setitem__, most=JOBS)
                return found
        commands = [(queue.key(job), ("HMGET", queue.key(job), *DUE)) for queue, job in jobs]
        return await ask(self._client, commands)


def _state(row: Sequence[Any], since: Iterable[int | None]) -> QueueState:
    """Read a row as the script gives it."""
    waiting, *others = row[:8]
    # Up to version 4 a marker `0:...` lay among the waiting; it is no job.
    markers = sum([id_.startswith(b"0:") for id_ in row[FIXED:]])
    next_delayed = None if row[10] is None else float(row[10]) // DELAYED_SCALE / 1000
    ready = min([at for at in since if at is not None], default=None)
    return QueueState((waiting - markers, *others), row[8], row[9], next_delayed, ready)


def _seconds(clock: Any) -> float:
    if not isinstance(clock, list):  # TIME is in no category a read-only user is usually given
        return time.time()
    return int(clock[0]) + int(clock[1]) / 1e6
