"""BullMQ queues as they lie in Redis, for reading: key layout, and one way to ask for many things at once.

Queue names are data: any bytes an application chose. A name is kept as bytes for keys, and shown as text. Nothing here
writes, and of a job only what identifies and times it is read (name, timestamp, delay, processedOn): never its data,
its result or its failure.

Source of the layout: bullmq 5.63.0 to 6.7.0 (`QueueKeys`, the Lua scripts), checked against both by service tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import hiredis
from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode

from opslib import redis
from opslib.errors import SourceError

Command = tuple[bytes | str | int, ...]
Asked = Sequence[tuple[bytes | ClusterNode, Command]]
Turns = Generator[Asked, Any, None]

JOB_FIELDS = ("name", "timestamp", "opts", "processedOn", "ats")

RIGHTS = "+@read +@connection on the queues' keys"  # what the ACL must allow; +@scripting and +client|list are welcome

# The server cannot be asked at all, as opposed to refusing one command.
AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ClusterDownError,
    exceptions.RedisClusterException,
    OSError,
    TimeoutError,
)


class Queue(NamedTuple):
    """One queue; a tuple, because it is hashed and compared thousands of times at each scrape.

    Attributes:
        prefix: BullMQ's key prefix.
        raw: The name as the application wrote it.
    """

    prefix: bytes
    raw: bytes

    @property
    def name(self) -> str:
        r"""The name as text; bytes that are no UTF-8 show as `\xNN`."""
        return _text(self.raw)

    def key(self, part: bytes) -> bytes:
        """The key of one of its structures, or of a job by id."""
        return b"%b:%b:%b" % (self.prefix, self.raw, part)


@lru_cache(maxsize=4096)  # shown at each scrape
def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Job:
    """What may be known of a job.

    Attributes:
        name: Its name, if the hash is there.
        due: When it was to be ready for its first attempt, Unix ms: added plus delay.
        processed_on: When its last attempt began, Unix ms, by the worker's clock.
        starts: Attempts begun so far.
    """

    name: bytes | None
    due: int | None
    processed_on: int | None
    starts: int | None

    @classmethod
    def parse(cls, values: Sequence[bytes | None]) -> Job:
        """Read the answer to `HMGET job` of `JOB_FIELDS`."""
        name, timestamp, opts, processed_on, starts = values
        added = _number(timestamp)
        return cls(
            name=name,
            due=None if added is None else added + _delay(opts),
            processed_on=_number(processed_on),
            starts=_number(starts),
        )


def _number(value: bytes | None) -> int | None:
    try:
        return None if value is None else int(float(value))
    except (ValueError, OverflowError):
        return None


def _delay(opts: bytes | None) -> int:
    """The delay a job was added with, in ms; its hash field `delay` is overwritten by each back-off."""
    if opts is None or b'"delay"' not in opts:
        return 0
    try:
        delay = json.loads(opts)["delay"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return int(delay) if isinstance(delay, int | float) and 0 < delay < float("inf") else 0


def connect(url: str, *, name: str, timeout: float) -> redis.Client:
    """A client of one connection (one per node of a cluster) that gives answers as the server sent them.

    Args:
        url: See `opslib.redis`.
        name: How it shows in CLIENT LIST.
        timeout: Seconds for connecting and for each answer.
    """
    client = redis.client(url, name=name, timeout=timeout)
    if isinstance(client, RedisCluster):
        for command in ("XREAD", "ZRANGE", "ZRANGEBYSCORE", "SCAN", "TIME", "HEXISTS"):
            client.set_response_callback(command, _as_sent)
    return client


def _as_sent(response: Any, **_: Any) -> Any:
    return response


async def ask(client: redis.Client, commands: Asked) -> list[Any]:
    """Send commands in one round trip (one per node of a cluster).

    Args:
        client: From `connect`.
        commands: Each with a key that says which node of a cluster it is for, or the node itself.

    Returns:
        The answers in order; a command the server refused has the `ResponseError` in its place.

    Raises:
        SourceError: The server is away, hung, loading, or its cluster down.
    """
    answers: list[Any] = []
    await ask_in_turns(client, (turn for turn in [commands]), answers.append)
    return answers


async def ask_in_turns(client: redis.Client, turns: Turns, tell: Callable[[Any], None]) -> None:
    """As `ask`, one round trip per turn; `tell` is given each answer while the server works at the next turn.

    A server answers nobody else until it is through with all that came at once: between two turns it does.

    Args:
        client: From `connect`.
        turns: What to ask in each turn; it is sent the answers before it says what comes next. No turn is empty, unless
            it is the only one.
        tell: Given every answer in order.
    """
    commands = next(turns, None)
    if not commands:
        return
    try:
        if isinstance(client, RedisCluster):
            while commands:
                answers = await _ask_cluster(client, commands)
                commands = _following(turns, answers)
                for answer in answers:
                    tell(answer)
        else:
            await _ask_server(client, commands, turns, tell)
    except AWAY as exc:
        if isinstance(client, RedisCluster):
            await client.aclose()  # the nodes may have changed places: look again next time
        raise away(exc) from exc


def _following(turns: Turns, answers: list[Any]) -> Asked:
    try:
        return turns.send(answers)
    except StopIteration:
        return ()


async def _ask_server(client: Redis, commands: Asked, turns: Turns, tell: Callable[[Any], None]) -> None:
    """What the client's pipeline does in half the time; that packs in Python, and converts each answer."""
    pool = client.connection_pool
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        await connection.send_packed_command(_packed(commands), check_health=False)
        while commands:
            answers = []
            for _ in commands:
                try:
                    answers.append(await connection.read_response())
                except exceptions.ResponseError as exc:
                    answers.append(exc)
            commands = _following(turns, answers)
            if commands:
                await connection.send_packed_command(_packed(commands), check_health=False)
            for answer in answers:
                tell(answer)
    except BaseException:
        await connection.disconnect(nowait=True)  # what it would answer next belongs to this question
        raise
    finally:
        await pool.release(connection)


def _packed(commands: Asked) -> bytes:
    return b"".join([_pack(command) for _, command in commands])


_pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment] # typed for tuples of one


async def _ask_cluster(client: RedisCluster, commands: Asked) -> list[Any]:
    await client.initialize()
    pipeline = client.pipeline()
    for where, command in commands:
        # Typed for text only; a key's bytes are hashed all the same.
        node = where if isinstance(where, ClusterNode) else client.get_node_from_key(where)  # type: ignore[arg-type]
        pipeline.execute_command(*command, target_nodes=node)
    answers: list[Any] = await pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, AWAY):
            raise answer
    return answers


def away(exc: BaseException) -> SourceError:
    """What `AWAY` means, in words."""
    text = str(exc) or type(exc).__name__
    if "permission" in text:  # refused while connecting, which the client takes for no connection
        return SourceError(f"Redis refuses us: {text}; its user needs {RIGHTS}")
    return SourceError(f"Redis does not answer: {text}; is it running, and REDIS_URL right?")


def slots(client: redis.Client, queues: Iterable[Queue]) -> list[list[Queue]]:
    """Group queues so that one command may name keys of a whole group: by slot in a cluster, else all together."""
    if isinstance(client, Redis):
        together = list(queues)
        return [together] if together else []
    groups: dict[int, list[Queue]] = {}
    for queue in queues:
        groups.setdefault(client.keyslot(queue.key(b"meta")), []).append(queue)
    return list(groups.values())
