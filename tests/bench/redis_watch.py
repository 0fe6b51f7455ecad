"""What others ask of a Redis: how many commands, on how many connections, and how long each holds the server."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator

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


# Works as long as our script over one batch of queues, and reads nothing: what it takes beyond that is the machine.
LOOP = "local n = 0 for i = 1, tonumber(ARGV[1]) do n = n + i % 7 end return n"


def holds(redis: Redis, script: str, keys: list[str], *, rounds: int) -> dict[str, list[float]]:
    """How long the script holds the server at each call, ms ascending; in turn with a loop of the same length."""
    own, loop = redis.script_load(script), redis.script_load(LOOP)
    times: dict[str, list[float]] = {"the script": [], "a loop as long that reads nothing": []}
    turns = 1000
    redis.config_set("slowlog-max-len", 10)
    redis.config_set("slowlog-log-slower-than", 0)
    for _ in range(rounds):
        redis.execute_command("EVALSHA_RO", own, len(keys), *keys)
        times["the script"].append(redis.slowlog_get(1)[0]["duration"] / 1000)
        redis.execute_command("EVALSHA", loop, 0, turns)
        took = redis.slowlog_get(1)[0]["duration"] / 1000
        times["a loop as long that reads nothing"].append(took)
        if len(times["the script"]) < CALIBRATED:
            turns = max(1, int(turns * times["the script"][-1] / max(took, 0.001)))
    redis.config_set("slowlog-log-slower-than", -1)
    return {name: sorted(each[CALIBRATED:]) for name, each in times.items()}
