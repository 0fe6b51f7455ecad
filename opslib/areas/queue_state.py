"""How many jobs of each queue are in which state right now, and how long the oldest has been waiting.

One script reads a batch of queues, so that many queues cost few commands and no command holds the server long. Where
scripts cannot run (Redis before 7 has no read-only ones, an ACL may refuse them) `queue_state_plain` reads the same
rows by plain commands. Both write nothing: they work for a user without `@write`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from redis.exceptions import NoScriptError, ResponseError

from opslib import redis
from opslib.areas import queue_state_plain
from opslib.areas.queues import JOB_FIELDS, RIGHTS, Command, Job, Queue, ask, slots
from opslib.errors import SourceError

log = structlog.get_logger()

BATCH = 20  # queues per script: 0.25 ms of the server; 200 would block it for up to 2.6 ms
DELAYED_SCALE = 4096  # a delayed job's score is its due time in ms times this, plus a number for the order

# For each `<queue>:meta` a row: eight counts, paused, worker, score of the next delayed; then the jobs that may be the
# oldest waiting with what tells since when: both ends of `wait` and `paused` (new jobs come in on the left, LIFO and
# stalled ones on the right), the next prioritized job and the first of the lowest priority (which starves first).
# A queue whose meta is gone answers nil. One with a key of another type in the way answers its error as text, and
# does not spoil the batch.
SCRIPT = """
local call = redis.call
local function read(base)
  if call('EXISTS', base .. 'meta') == 0 then return false end
  local row = {
    call('LLEN', base .. 'wait'), call('LLEN', base .. 'active'), call('ZCARD', base .. 'completed'),
    call('ZCARD', base .. 'failed'), call('ZCARD', base .. 'delayed'), call('LLEN', base .. 'paused'),
    call('ZCARD', base .. 'prioritized'), call('ZCARD', base .. 'waiting-children'),
    call('HEXISTS', base .. 'meta', 'paused'), call('EXISTS', base .. 'stalled-check'),
    call('ZRANGE', base .. 'delayed', 0, 0, 'WITHSCORES')[2] or false,
  }
  local ids = {}
  for place, list in pairs({ [1] = 'wait', [6] = 'paused' }) do
    if row[place] > 0 then ids[#ids + 1] = call('LINDEX', base .. list, -1) end
    if row[place] > 1 then ids[#ids + 1] = call('LINDEX', base .. list, 0) end
  end
  if row[7] > 0 then
    ids[#ids + 1] = call('ZRANGE', base .. 'prioritized', 0, 0)[1]
  end
  if row[7] > 1 then
    local last = tonumber(call('ZRANGE', base .. 'prioritized', -1, -1, 'WITHSCORES')[2])
    local lowest = string.format('%.0f', math.floor(last / 4294967296) * 4294967296)
    ids[#ids + 1] = call('ZRANGEBYSCORE', base .. 'prioritized', lowest, '+inf', 'LIMIT', 0, 1)[1]
  end
  for _, id in ipairs(ids) do
    row[#row + 1] = { id, unpack(call('HMGET', base .. id, JOB_FIELDS)) }
  end
  return row
end
local rows = {}
for i, key in ipairs(KEYS) do
  local ok, row = pcall(read, string.sub(key, 1, -5))
  rows[i] = ok and row or not ok and (type(row) == 'table' and row.err or tostring(row))
end
return rows
""".replace("JOB_FIELDS", ", ".join(f"'{field}'" for field in JOB_FIELDS))
SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue at one moment.

    Attributes:
        counts: Jobs waiting, active, completed, failed, delayed, paused, prioritized, waiting for children.
        is_paused: Is the queue paused?
        worker_present: Has a worker checked for stalled jobs within half a minute?
        next_delayed: When the next delayed job is due, Unix seconds; None if there is none.
        oldest: The jobs that may be the oldest waiting: id, and since when at the earliest, Unix ms.
    """

    counts: tuple[int, ...]
    is_paused: bool
    worker_present: bool
    next_delayed: float | None
    oldest: tuple[tuple[bytes, int], ...]

    @classmethod
    def parse(cls, row: Sequence[Any]) -> QueueState:
        """Read a row as the script gives it."""
        counts, (paused, worker, score), jobs = row[:8], row[8:11], row[11:]
        # Up to version 4 a marker `0:...` lay among the waiting; it is no job.
        markers = sum(id_.startswith(b"0:") for id_, *_ in jobs)
        oldest = []
        for id_, *fields in jobs:
            job = Job.parse(fields)
            if job.due is not None:
                oldest.append((id_, max(job.due, job.processed_on or 0)))
        return cls(
            counts=(counts[0] - markers, *counts[1:]),
            is_paused=bool(paused),
            worker_present=bool(worker),
            next_delayed=None if score is None else float(score) // DELAYED_SCALE / 1000,
            oldest=tuple(oldest),
        )


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
    """

    def __init__(self, client: redis.Client) -> None:
        self._client = client
        self._scripts = True
        self._unreadable: set[Queue] = set()

    async def read(self, queues: Sequence[Queue]) -> Reading:
        """Every queue as it is now.

        Raises:
            SourceError: The server is away, or lets us read nothing.
        """
        try:
            now, rows = await self._rows(queues)
        except SourceError:
            self._scripts = True  # the server that comes back may be another one
            raise
        states = {queue: QueueState.parse(row) for queue, row in rows.items() if isinstance(row, list)}
        unreadable = {queue: row for queue, row in rows.items() if isinstance(row, bytes)}
        for queue in unreadable.keys() - self._unreadable:
            log.warning("queue_unreadable", queue=queue.name, error=unreadable[queue].decode("utf-8", "replace"))
        self._unreadable = set(unreadable)
        if unreadable and not states:
            error = next(iter(unreadable.values())).decode("utf-8", "replace")
            raise SourceError(f"Redis lets us read no queue: {error}; its user needs {RIGHTS}")
        return Reading(now, states)

    async def _rows(self, queues: Sequence[Queue]) -> tuple[float, dict[Queue, Any]]:
        """The server's time, and per queue a row, None if it is gone, or an error's text."""
        groups = slots(self._client, queues)
        batches = [group[i : i + BATCH] for group in groups for i in range(0, len(group), BATCH)]
        if self._scripts:
            now, rows = await self._by_script(batches)
            if rows is not None:
                return now, rows
            self._scripts = False
            log.info("queue_scripts_refused", instead="plain commands")
        (clock,) = await ask(self._client, [(b"", ("TIME",))])
        return _seconds(clock), await queue_state_plain.read(self._client, queues)

    async def _by_script(self, batches: Sequence[Sequence[Queue]]) -> tuple[float, dict[Queue, Any] | None]:
        """All rows; None if this server or this user has no read-only scripts."""
        keys = [[queue.key(b"meta") for queue in batch] for batch in batches]
        commands: list[tuple[bytes, Command]] = [(k[0], ("EVALSHA_RO", SHA, len(k), *k)) for k in keys]
        clock, *answers = await ask(self._client, [(b"", ("TIME",)), *commands])
        new = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if new:
            loaded = await ask(self._client, [(keys[i][0], ("EVAL_RO", SCRIPT, len(keys[i]), *keys[i])) for i in new])
            for i, answer in zip(new, loaded, strict=True):
                answers[i] = answer
        if any(isinstance(answer, ResponseError) for answer in answers):
            return _seconds(clock), None
        rows: dict[Queue, Any] = {}
        for batch, answer in zip(batches, answers, strict=True):
            rows.update(zip(batch, answer, strict=True))
        return _seconds(clock), rows


def _seconds(clock: Any) -> float:
    if isinstance(clock, ResponseError):  # TIME is in no category a read-only user is usually given
        return time.time()
    return int(clock[0]) + int(clock[1]) / 1e6
