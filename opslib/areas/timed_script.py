"""Read-only scripts over many keys that watch their time, so that none holds the server for long.

How long a key takes nobody knows beforehand: what was read just before is at hand, what was not is three times as slow.
So a script stops by itself, and what it did not get to the next one reads. Two go out at once, no more: Redis answers
nobody else until it is through with all that came at once.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from redis.exceptions import NoScriptError, ResponseError

from opslib import redis
from opslib.areas.queues import Command, Turns, ask_in_turns

LIMIT = 370  # µs of reading; with its beginning and its answer a script holds the server for less than 0.5 ms
AT_ONCE = 2  # scripts
UNTIMED = 18  # keys per script where the server tells no time

# What every script ends in; before it stands a function `read(key)`. Answers the server's time as the script began (nil
# where the ACL hides it), then what `read` said of the first of KEYS, of as many as there was time for (ARGV: µs).
# Time stands still in scripts of Redis 7.2; from 7.4 on there is `os.clock`. How many keys there will be time for is
# estimated once some are read, and again on the way there.
TIMED = """
local began, os = redis.pcall('TIME'), rawget(_G, 'os')
local start = os and os.clock()
local function spent()
  if start then return (os.clock() - start) * 1000000 end
  local now = began[1] and redis.call('TIME')
  return now and (now[1] - began[1]) * 1000000 + now[2] - began[2] or 0
end
local rows, look = { began[1] and began or false }, 4
for i, key in ipairs(KEYS) do
  rows[i + 1] = read(key)
  if i == look then
    local took = spent()
    local fit = took > 0 and i * ARGV[1] / took or UNTIMED
    if fit < i + 1 then break end
    look = i + math.max(1, math.floor((fit - i) * 3 / 4))
  end
end
return rows
""".replace("UNTIMED", str(UNTIMED))

T = TypeVar("T")


class NoScriptsError(Exception):
    """This server or this user has no read-only scripts."""


async def run(
    client: redis.Client,
    script: str,
    groups: Iterable[Sequence[tuple[bytes, T]]],
    take: Callable[[T, Any], None],
    *,
    most: int,
) -> Any:
    """Run a script over the keys of many things.

    Args:
        client: From `connect`.
        script: It ends in `TIMED`.
        groups: Things by their keys; the keys of a group may stand in one command.
        take: Given each thing and what the script says of it, in no certain order, while the server works at the next.
        most: Keys per script, whatever the time.

    Returns:
        The server's time as TIME says it; None where it is hidden.

    Raises:
        NoScriptsError: See there.
        SourceError: The server is away.
    """
    work = _Work(script, groups, take, most)
    await ask_in_turns(client, work.turns(), work.tell)
    return work.clock


class _Work(Generic[T]):
    """What is still to be read, and what is on its way."""

    def __init__(
        self, script: str, groups: Iterable[Sequence[tuple[bytes, T]]], take: Callable[[T, Any], None], most: int
    ) -> None:
        self.clock: Any = None
        self._script = script
        self._how: Command = ("EVALSHA_RO", hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest())
        self._take = take
        self._most = most
        self._to_do = deque(groups)
        self._together = len(self._to_do) == 1
        self._asked: deque[Sequence[tuple[bytes, T]]] = deque()

    def turns(self) -> Turns:
        while self._to_do:
            turn = self._turn()
            self._asked.extend(turn)
            answers = yield [self._command(things) for things in turn]
            for things, answer in zip(turn, answers, strict=True):
                self._put_back(things, answer)

    def tell(self, answer: Any) -> None:
        asked = self._asked.popleft()
        if isinstance(answer, NoScriptError):
            return
        clock, *rows = answer
        self.clock = self.clock or clock
        for (_, thing), row in zip(asked, rows, strict=False):
            self._take(thing, row)

    def _turn(self) -> list[Sequence[tuple[bytes, T]]]:
        """What goes out next: two parts of a large group, or several small groups (in a cluster, those of a slot)."""
        turn: list[Sequence[tuple[bytes, T]]] = []
        room = AT_ONCE * self._most
        while self._to_do and room > 0:
            group = self._to_do.popleft()
            turn.append(group[: self._most])
            room -= len(turn[-1])
            if rest := group[self._most :]:
                self._to_do.appendleft(rest)
        return turn

    def _command(self, things: Sequence[tuple[bytes, T]]) -> tuple[bytes, Command]:
        return things[0][0], (*self._how, len(things), *[key for key, _ in things], LIMIT)

    def _put_back(self, things: Sequence[tuple[bytes, T]], answer: Any) -> None:
        if isinstance(answer, NoScriptError):
            self._how = ("EVAL_RO", self._script)  # the server is new
            rest = things
        elif isinstance(answer, ResponseError):
            raise NoScriptsError from answer
        else:
            rest = things[len(answer) - 1 :]
        if rest and self._together and self._to_do:
            self._to_do[0] = [*rest, *self._to_do[0]]
        elif rest:
            self._to_do.appendleft(rest)
