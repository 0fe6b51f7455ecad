"""Jobs that run and vanish, faster than any worker could: the events BullMQ 5.63.0 writes, at a rate of one's choice.

Four events a job, each stream trimmed as BullMQ trims it: to about 10,000 events, unless told otherwise. The jobs are
never there, as with `removeOnComplete`: what is not read from the stream in time is lost.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from redis import Redis

NAMES = 4  # job names per queue
FAILS = 20  # every so-manieth job fails
TICK = 0.01  # seconds
FOUND = 3.0  # seconds until new queues are found

# KEYS[1]: the stream; ARGV: stage, first job, jobs, names, fails, length. Returns when it was, in µs.
SCRIPT = """
local now = redis.call('TIME')
local stream, stage, first, names, fails = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5])
for job = first, first + tonumber(ARGV[3]) - 1 do
  if stage == 'add' then
    redis.call('XADD', stream, '*', 'event', 'added', 'jobId', job, 'name', 'name-' .. job % names)
    redis.call('XADD', stream, 'MAXLEN', '~', ARGV[6], '*', 'event', 'waiting', 'jobId', job)
  elseif stage == 'start' then
    redis.call('XADD', stream, '*', 'event', 'active', 'jobId', job, 'prev', 'waiting')
  elseif job % fails == 0 then
    redis.call('XADD', stream, '*', 'event', 'failed', 'jobId', job, 'failedReason', 'boom', 'prev', 'active')
  else
    redis.call('XADD', stream, '*', 'event', 'completed', 'jobId', job, 'returnvalue', 'null', 'prev', 'active')
  end
end
return now[1] * 1000000 + now[2]
"""


@dataclass(slots=True)
class Truth:
    """What was produced.

    Attributes:
        jobs: By queue, result and name.
        seconds: What the workers would say their jobs took, summed.
        took: Seconds producing took.
    """

    jobs: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    seconds: float = 0.0
    took: float = 0.0

    @property
    def ended(self) -> int:
        """All jobs."""
        return sum(self.jobs.values())


@dataclass(slots=True)
class _Batch:
    """Jobs first .. first + count - 1 of every queue.

    Attributes:
        age: Ticks since they were added.
        started: When they started, by the server's clock, summed over the queues.
    """

    first: int
    count: int
    age: int = 0
    started: float = 0.0


STAGES = {0: "add", 1: "start", 3: "end"}  # by age


class Producer:
    """Runs jobs in batches; each waits for a tick and runs for two.

    Args:
        redis: A client.
        queues: How many to spread them over.
        length: Of a stream, in events.
    """

    def __init__(self, redis: Redis, queues: int, length: int) -> None:
        self.truth = Truth()
        self._redis = redis
        self._names = [f"fast-{number}" for number in range(queues)]
        self._batches: deque[_Batch] = deque()
        self._length = length
        self._script = redis.register_script(SCRIPT)
        redis.script_load(SCRIPT)
        for name in self._names:
            redis.hset(f"bull:{name}:meta", mapping={"opts.maxLenEvents": length, "version": "bullmq:5.63.0"})

    def run(self, rate: float, *, jobs: int, over: threading.Event) -> Truth:
        """Run jobs, `rate` of them a second, until there were `jobs` or it is `over`."""
        each = jobs // len(self._names)
        chance = random.Random(7)  # an event's time is whole ms: at even ticks all would be cut off alike
        made, tick, began = 0, 0, time.time()
        while (made < each and not over.is_set()) or self._batches:
            due = 0 if over.is_set() else min(each, int((time.time() - began) * rate / len(self._names)))
            if due > made:
                self._batches.append(_Batch(made + 1, due - made))
                made = due
            self._turn()
            tick += 1
            time.sleep(max(0.0, began + (tick + chance.random()) * TICK - time.time()))
        self.truth.took = time.time() - began
        return self.truth

    def _turn(self) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        due = [batch for batch in self._batches if batch.age in STAGES]
        for batch in due:
            for name in self._names:
                args = [STAGES[batch.age], batch.first, batch.count, NAMES, FAILS, self._length]
                self._script(keys=[f"bull:{name}:events"], args=args, client=pipeline)
        times = iter(pipeline.execute())
        for batch in due:
            now = sum(int(next(times)) for _ in self._names) / 1e6
            if STAGES[batch.age] == "start":
                batch.started = now
            elif STAGES[batch.age] == "end":
                self._end(batch, now)
        for batch in self._batches:
            batch.age += 1
        while self._batches and self._batches[0].age > max(STAGES):
            self._batches.popleft()

    def _end(self, batch: _Batch, now: float) -> None:
        self.truth.seconds += (now - batch.started) * batch.count
        for job in range(batch.first, batch.first + batch.count):
            result = "completed" if job % FAILS else "failed"
            for name in self._names:
                self.truth.jobs[name, result, f"name-{job % NAMES}"] += 1


def produce(
    redis: Redis,
    *,
    queues: int,
    rate: float,
    jobs: int = sys.maxsize,
    over: threading.Event | None = None,
    length: int = 10_000,
) -> Truth:
    """Run jobs over `queues` new queues, `rate` of them a second, until there were `jobs` or it is `over`."""
    producer = Producer(redis, queues, length)
    time.sleep(FOUND)
    return producer.run(rate, jobs=jobs, over=over or threading.Event())
