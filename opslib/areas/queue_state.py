"""How many jobs of each queue are in which state right now, and how long the oldest has been waiting.

One script reads a batch of queues, so that many queues cost few commands and no command holds the server long. Where
scripts cannot run (Redis before 7 has no read-only ones, an ACL may refuse them) `queue_state_plain` reads the same
rows by plain commands. Both write nothing: they work for a user without `@write`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import structlog
from redis.asyncio import RedisCluster
from redis.exceptions import NoScriptError, ResponseError

from opslib import redis
from opslib.areas import queue_state_plain
from opslib.areas.queues import JOB_FIELDS, RIGHTS, Command, Job, Queue, ask, slots
from opslib.errors import SourceError

log = structlog.get_logger()

BATCH = 20  # queues per script: 0.3 ms of the server; 200 would block it for 3 ms
JOBS = 100  # jobs per script
FIXED = 11  # what stands in a row before the jobs
DELAYED_SCALE = 4096  # a delayed job's score is its due time in ms times this, plus a number for the order

# For each `<queue>:meta` a row: eight counts, paused, worker, score of the next delayed; then the ids of the jobs that
# may be the oldest waiting: both ends of `wait` and `paused` (new jobs come in on the left, LIFO and stalled ones on
# the right), the next prioritized job and the first of the lowest priority (which starves first).
# A queue whose meta is gone answers nil. One with a key of another type in the way answers its error as text, and
# does not spoil the batch.
QUEUE_SCRIPT = """
local call = redis.call
local function read(base)
  local meta, wait, paused = base .. 'meta', base .. 'wait', base .. 'paused'
  local delayed, prioritized = base .. 'delayed', base .. 'prioritized'
  if call('EXISTS', meta) == 0 then return false end
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
  return row
end
local rows = {}
for i, key in ipairs(KEYS) do
  local ok, row = pcall(read, string.sub(key, 1, -5))
  rows[i] = ok and row or not ok and (type(row) == 'table' and row.err or tostring(row))
end
return rows
"""

# For each job's key its fields; nil for one that cannot be read.
JOB_SCRIPT = """
local rows = {}
for i, key in ipairs(KEYS) do
  local row = redis.pcall('HMGET', key, JOB_FIELDS)
  rows[i] = not row.err and row
end
return rows
""".replace("JOB_FIELDS", ", ".join(f"'{field}'" for field in JOB_FIELDS))


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


class StateReader:
    """Reads the state of queues.

    Args:
        client: A connection of its own.
        ready_since: What the events say of jobs: since when each has been ready for a worker, Unix ms, if they say it.
            Of the others the hash tells; of those put back in line by hand it does not.
    """

    def __init__(self, client: redis.Client, ready_since: Callable[[Queue, Sequence[bytes]], list[int | None]]) -> None:
        self._client = client
        self._ready_since = ready_since
        self._known: dict[Queue, dict[bytes, int | None]] = {}
        self._scripts = True
        self._unreadable: set[Queue] = set()

    async def read(self, queues: Sequence[Queue]) -> Reading:
        """Every queue as it is now.

        Raises:
            SourceError: The server is away, or lets us read nothing.
        """
        try:
            now, answers = await self._rows(queues)
            rows = {queue: row for queue, row in answers.items() if isinstance(row, list)}
            since = await self._since({queue: row[FIXED:] for queue, row in rows.items() if len(row) > FIXED})
        except SourceError:
            self._scripts = True  # the server that comes back may be another one
            raise
        unreadable = {queue: row for queue, row in answers.items() if isinstance(row, bytes)}
        for queue in unreadable.keys() - self._unreadable:
            log.warning("queue_unreadable", queue=queue.name, error=unreadable[queue].decode("utf-8", "replace"))
        self._unreadable = set(unreadable)
        if unreadable and not rows:
            error = next(iter(unreadable.values())).decode("utf-8", "replace")
            raise SourceError(f"Redis lets us read no queue: {error}; its user needs {RIGHTS}")
        return Reading(now, {queue: _state(row, since.get(queue)) for queue, row in rows.items()})

    async def _since(self, waiting: Mapping[Queue, Sequence[bytes]]) -> dict[Queue, int | None]:
        """Since when the oldest of these jobs has been ready. A job's hash is asked once."""
        known: dict[Queue, dict[bytes, int | None]] = {}
        unknown: list[tuple[Queue, bytes]] = []
        for queue, jobs in waiting.items():
            times = known[queue] = dict(zip(jobs, self._ready_since(queue, jobs), strict=True))
            if None in times.values():
                before = self._known.get(queue, {})
                for job in [job for job, at in times.items() if at is None]:
                    if job in before:
                        times[job] = before[job]
                    else:
                        unknown.append((queue, job))
        for (queue, name), fields in zip(unknown, await self._jobs(unknown), strict=True):
            job_now = Job.parse(fields) if isinstance(fields, list) else None
            if job_now is not None and job_now.due is not None:
                known[queue][name] = max(job_now.due, job_now.processed_on or 0)
        self._known = known
        return {
            queue: min([at for at in times.values() if at is not None], default=None) for queue, times in known.items()
        }

    async def _rows(self, queues: Sequence[Queue]) -> tuple[float, dict[Queue, Any]]:
        """The server's time, and per queue a row, None if it is gone, or an error's text."""
        if self._scripts:
            groups = slots(self._client, queues)
            batches = [group[i : i + BATCH] for group in groups for i in range(0, len(group), BATCH)]
            clock, answers = await self._by_script(
                QUEUE_SCRIPT, [[queue.key(b"meta") for queue in batch] for batch in batches]
            )
            if answers is not None:
                return _seconds(clock), dict(zip(chain.from_iterable(batches), answers, strict=True))
            self._scripts = False
            log.info("queue_scripts_refused", instead="plain commands")
        (clock,) = await ask(self._client, [(b"", ("TIME",))])
        return _seconds(clock), await queue_state_plain.read(self._client, queues)

    async def _jobs(self, jobs: Sequence[tuple[Queue, bytes]]) -> list[Any]:
        """The fields of jobs; no list in the place of one that cannot be read."""
        if not jobs:
            return []
        if self._scripts and not isinstance(self._client, RedisCluster):
            keys = [queue.key(job) for queue, job in jobs]
            _, answers = await self._by_script(JOB_SCRIPT, [keys[i : i + JOBS] for i in range(0, len(keys), JOBS)])
            if answers is not None:
                return answers
        commands = [(queue.key(job), ("HMGET", queue.key(job), *JOB_FIELDS)) for queue, job in jobs]
        return await ask(self._client, commands)

    async def _by_script(self, script: str, batches: Sequence[Sequence[bytes]]) -> tuple[Any, list[Any] | None]:
        """The server's clock, and an answer per key; None if this server or this user has no read-only scripts."""
        sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        commands: list[tuple[bytes, Command]] = [(keys[0], ("EVALSHA_RO", sha, len(keys), *keys)) for keys in batches]
        clock, *answers = await ask(self._client, [(b"", ("TIME",)), *commands])
        new = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if new:
            loaded = await ask(
                self._client, [(batches[i][0], ("EVAL_RO", script, len(batches[i]), *batches[i])) for i in new]
            )
            for i, answer in zip(new, loaded, strict=True):
                answers[i] = answer
        if any(isinstance(answer, ResponseError) for answer in answers):
            return clock, None
        return clock, list(chain.from_iterable(answers))


def _state(row: Sequence[Any], since: int | None) -> QueueState:
    """Read a row as the script gives it."""
    waiting, *others = row[:8]
    # Up to version 4 a marker `0:...` lay among the waiting; it is no job.
    markers = sum([id_.startswith(b"0:") for id_ in row[FIXED:]])
    next_delayed = None if row[10] is None else float(row[10]) // DELAYED_SCALE / 1000
    return QueueState((waiting - markers, *others), row[8], row[9], next_delayed, since)


def _seconds(clock: Any) -> float:
    if isinstance(clock, ResponseError):  # TIME is in no category a read-only user is usually given
        return time.time()
    return int(clock[0]) + int(clock[1]) / 1e6
