"""Queues as BullMQ 5.63.0 leaves them in Redis: 5,000 jobs each, written by a script in seconds.

Each has jobs in every state, but only one in five has prioritized ones, and one in ten is paused.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from redis import Redis

JOBS = 5000  # per queue
READ = 0.3  # seconds until the events of a move are read: a scrape is measured, not the reading

# KEYS[1]: `bull:<queue>:`; ARGV: now in ms, the queue's number. Shapes: addStandardJob-9, moveToFinished-14.
SCRIPT = """
local base, now, number = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local call, id = redis.call, 0
local opts = '{"attempts":3,"backoff":{"type":"exponential","delay":1000}}'
local data = '{"orderId":"9b2f4c1e-5d0a-4a7e-8a66-0c1d2e3f4a5b","productId":"9b2f4c1e","quantity":1}'
local function jobs(count, file, ...)
  for i = 1, count do
    id = id + 1
    call('HSET', base .. id, 'name', 'reserve', 'data', data, 'opts', opts, 'timestamp', now - 60000 + i,
         'delay', 0, 'priority', 0, ...)
    file(id, i)
  end
end
local function list(key) return function(job) call('LPUSH', base .. key, job) end end
local function set(key, score) return function(job, i) call('ZADD', base .. key, score(i), job) end end
local done = { 'ats', 1, 'processedOn', now - 50000, 'finishedOn', now - 49950, 'atm', 1 }
call('HSET', base .. 'meta', 'opts.maxLenEvents', 10000, 'version', 'bullmq:5.63.0')
if number % 10 == 0 then call('HSET', base .. 'meta', 'paused', 1) end
call('SET', base .. 'stalled-check', now)
jobs(500 + number, list('wait'))
jobs(10, list('active'), 'ats', 1, 'processedOn', now - 500)
jobs(number % 5 == 0 and 100 or 0, set('prioritized', function(i) return (i % 5 + 1) * 4294967296 + i end))
jobs(390 - number + (number % 5 == 0 and 0 or 100), set('delayed', function(i) return (now + 3600000 + i) * 4096 end))
jobs(20, set('waiting-children', function(i) return now + i end))
jobs(980, set('failed', function(i) return now - i end), 'failedReason', 'boom', unpack(done))
jobs(3000, set('completed', function(i) return now - i end), 'returnvalue', 'null', unpack(done))
call('SET', base .. 'id', id)
for job = 1, 25 do
  local added = { 'event', 'added', 'jobId', job, 'name', 'reserve' }
  call('XADD', base .. 'events', '*', unpack(added))
  call('XADD', base .. 'events', 'MAXLEN', '~', 10000, '*', 'event', 'waiting', 'jobId', job)
  call('XADD', base .. 'events', '*', 'event', 'active', 'jobId', job, 'prev', 'waiting')
  call('XADD', base .. 'events', '*', 'event', 'completed', 'jobId', job, 'returnvalue', 'null', 'prev', 'active')
end
return id
"""

# KEYS: `bull:<queue>:` of every queue; ARGV: now in ms. One job is taken and one is added, in each.
MOVE = """
for _, base in ipairs(KEYS) do
  local id = redis.call('INCR', base .. 'id')
  redis.call('HSET', base .. id, 'name', 'reserve', 'data', '{}', 'opts', '{}', 'timestamp', ARGV[1], 'delay', 0)
  redis.call('LPUSH', base .. 'wait', id)
  redis.call('XADD', base .. 'events', '*', 'event', 'added', 'jobId', id, 'name', 'reserve')
  redis.call('XADD', base .. 'events', 'MAXLEN', '~', 10000, '*', 'event', 'waiting', 'jobId', id)
  local taken = redis.call('RPOPLPUSH', base .. 'wait', base .. 'active')
  redis.call('HSET', base .. taken, 'ats', 1, 'processedOn', ARGV[1])
  redis.call('XADD', base .. 'events', '*', 'event', 'active', 'jobId', taken, 'prev', 'waiting')
end
"""


def mover(redis: Redis, names: list[str]) -> Callable[[], None]:
    """What takes and adds a job in every queue at each call."""
    script = redis.register_script(MOVE)
    keys = [f"bull:{name}:" for name in names]

    def move() -> None:
        script(keys=keys, args=[int(time.time() * 1000)])
        time.sleep(READ)

    return move


def seed(redis: Redis, queues: int) -> list[str]:
    """Empty the server and fill it.

    Returns:
        The queues' names.
    """
    redis.flushall()
    names = [f"queue-{number}" for number in range(queues)]
    script = redis.register_script(SCRIPT)
    for number, name in enumerate(names):
        written = script(keys=[f"bull:{name}:"], args=[int(time.time() * 1000), number])
        assert written == JOBS
    return names
