"""What others ask of a Redis: how many commands, on how many connections, and how long each holds the server."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator

from redis import Redis

OURS = ("SLOWLOG", "MONITOR", "CLIENT")  # asked by the bench itself
SEEN = 50  # slow ones of a kind that make a quantile
CALIBRATED = 20  # rounds until the loop takes as long
HELD_FROM = 100  # µs; shorter commands hold nobody


class Commands:
    """The commands a block saw, without what scripts call inside, by (client's name, command).

    Attributes:
        seen: Filled when the block ends.
    """

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, str]] = Counter()

    def of(self, client: str) -> int:
        """How many from clients whose name begins so."""
        return sum(count for (name, _), count in self.seen.items() if name.startswith(client))


@contextlib.contextmanager
def commands(redis: Redis) -> Iterator[Commands]:
    """Watch with MONITOR; too dear to be on while anything is timed."""
    result = Commands()
    with socket.create_connection(
        ("127.0.0.1", redis.connection_pool.connection_kwargs["port"]), timeout=10
    ) as monitor:
        monitor.sendall(b"MONITOR\r\n")
        yield result
        redis.execute_command("ECHO", "the block ends")
        text = b""
        while b"the block ends" not in text:
            text += monitor.recv(1 << 20)
    names = {client["addr"]: client["name"] for client in redis.client_list()}
    for line in text.splitlines():
        origin, _, command = line.partition(b"] ")
        address = origin.rpartition(b" ")[2].decode()
        verb = command.split(b" ")[0].strip(b'"').decode().upper()
        if command and address != "lua" and verb != "ECHO":
            result.seen[names.get(address, ""), verb] += 1


def connections(redis: Redis) -> int:
    """Connections others hold, workers and producers included."""
    return len(redis.client_list()) - 1


class Held:
    """How long commands held the server during a block.

    Attributes:
        longest: By command, each time above `HELD_FROM`, in ms, ascending.
    """

    def __init__(self) -> None:
        self.longest: dict[str, list[float]] = {}

    def at(self, quantile: float) -> float:
        """What the slowest kind of command took at this quantile, in ms; 1 is the worst of all.

        Kinds seen a few times only stay out of it, but for the worst: it was another process that held them up.
        """
        least = 1 if quantile == 1 else SEEN
        kinds = [times for verb, times in self.longest.items() if verb not in OURS and len(times) >= least]
        return max((times[min(len(times) - 1, int(len(times) * quantile))] for times in kinds), default=0.0)

    def longest_by(self) -> dict[str, float]:
        """The longest of each command, in ms."""
        return {verb: times[-1] for verb, times in self.longest.items()}


@contextlib.contextmanager
def held(redis: Redis, *, but: str = "") -> Iterator[Held]:
    """Watch through the slow log, `but` one kind of command."""
    result = Held()
    redis.config_set("slowlog-max-len", 1_000_000)
    redis.config_set("slowlog-log-slower-than", HELD_FROM)
    redis.slowlog_reset()
    try:
        yield result
    finally:
        redis.config_set("slowlog-log-slower-than", -1)
    for entry in redis.slowlog_get(1_000_000):
        verb = entry["command"].split(b" ")[0].decode().upper()
        result.longest.setdefault(verb, []).append(entry["duration"] / 1000)
    for times in result.longest.values():
        times.sort()
    result.longest.pop(but, None)


def undisturbed(pid: int) -> bool:
    """Let the server run before every other process: what holds it then is its work, and no neighbour on its core.

    A nice value does not do: where the kernel groups processes by session it counts within the session only.

    Returns:
        Whether we may; root may.
    """
    try:
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    return True


def scripts(redis: Redis) -> int:
    """Read-only scripts run so far. They watch their time: MONITOR would slow them, and so make them more."""
    stats = redis.info("commandstats")
    return sum(stats.get(f"cmdstat_{verb}", {}).get("calls", 0) for verb in ("eval_ro", "evalsha_ro"))


# Reads nothing: what it takes beyond what it takes at its best is the machine.
LOOP = "local n = 0 for i = 1, tonumber(ARGV[1]) do n = n + i % 7 end return n"


def loop(redis: Redis, ms: float) -> Callable[[], None]:
    """What holds the server so long and reads nothing; the slow log has it as EVAL."""
    turns = 10_000
    redis.config_set("slowlog-max-len", 10)
    redis.config_set("slowlog-log-slower-than", 0)
    for _ in range(CALIBRATED):
        redis.eval(LOOP, 0, turns)
        took = redis.slowlog_get(1)[0]["duration"] / 1000
        turns = max(1, int(turns * ms / max(took, 0.001)))
    redis.config_set("slowlog-log-slower-than", -1)
    return lambda: redis.eval(LOOP, 0, turns)
