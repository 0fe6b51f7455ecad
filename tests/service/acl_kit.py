"""Every command a Redis server knows, tried as a user: what tests and bench share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from demo.redis import RedisServer
from opslib.areas import redis_acl

HARMLESS = frozenset({"client|list", "info"})
"""Dangerous by category, and wanted."""


@dataclass(frozen=True, slots=True)
class Verb:
    """A command as the server describes it.

    Attributes:
        name: `get`, `client|kill`.
        arity: Words it takes; below zero: at least.
        flags: `write`, `readonly`, …
        categories: `@dangerous`, …
        keyed: It names keys.
    """

    name: str
    arity: int
    flags: frozenset[str]
    categories: frozenset[str]
    keyed: bool

    def words(self, key: str) -> list[str]:
        """One that the server gets as far as asking whether the user may: it counts words before that."""
        start = self.name.split("|")
        # Two more where more are welcome: with none some commands name no key yet.
        rest = [key] * (abs(self.arity) - len(start) + (2 if self.arity < 0 else 0))
        if self.name in {"eval", "eval_ro", "evalsha", "evalsha_ro", "fcall", "fcall_ro"}:
            rest = ["return 1", "1", key]
        elif "movablekeys" in self.flags and "|" not in self.name:
            rest = _MOVABLE.get(self.name, ["{key}", "1", "{key}"])
            rest = [word.format(key=key) for word in rest]
        return [*start, *rest]


_MOVABLE: dict[str, list[str]] = {
    **{key: ["1", "{key}"] for key in ("zunion", "zinter", "zdiff", "sintercard", "zintercard")},
    **{key: ["{key}", "1", "{key}"] for key in ("zunionstore", "zinterstore", "zdiffstore")},
    **{key: ["1", "{key}", "MIN"] for key in ("lmpop", "zmpop")},
    **{key: ["0.01", "1", "{key}", "MIN"] for key in ("blmpop", "bzmpop")},
    **{key: ["{key}"] for key in ("sort", "sort_ro")},
    "migrate": ["localhost", "1", "{key}", "0", "10"],
    "xread": ["STREAMS", "{key}", "0"],
    "xreadgroup": ["GROUP", "g", "c", "STREAMS", "{key}", "0"],
    **{key: ["{key}", "1", "1", "1", "m"] for key in ("georadius", "georadiusbymember")},
}


def verbs(server: RedisServer) -> list[Verb]:
    """Every command and subcommand."""
    with Redis(unix_socket_path=str(server.socket)) as client:
        return list(_flat(_raw(client)))


def _raw(client: Redis) -> Any:
    connection = client.connection_pool.get_connection()
    try:
        connection.send_command("COMMAND")
        return connection.read_response()
    finally:
        client.connection_pool.release(connection)


def _flat(entries: Any) -> Iterator[Verb]:
    for name, arity, flags, _, _, _, categories, _, keys, below in entries:
        if below:
            yield from _flat(below)
        else:
            words = (frozenset(each.decode() for each in group) for group in (flags, categories))
            yield Verb(name.decode(), arity, *words, bool(keys) or b"movablekeys" in flags)


def make_users(server: RedisServer, prefix: str = "bull") -> None:
    """Make both, with the password `pw`."""
    with server.client() as client:
        for user in redis_acl.USERS:
            client.execute_command("ACL", "SETUSER", user, *redis_acl.rules(user, prefix), ">pw")


def permitted(server: RedisServer, user: str, verb: Verb, key: str) -> bool:
    """Send it for real, on a connection of its own: what the server refuses for any other reason is permitted."""
    client = Redis(unix_socket_path=str(server.socket), username=user, password="pw", socket_timeout=3)
    try:
        client.execute_command(*verb.words(key))
    except NoPermissionError:
        return False
    except ResponseError as exc:
        # DEBUG and MODULE are switched off for everybody, which the server says before it asks who.
        return "not allowed" not in str(exc)
    except (RedisError, LostError, ValueError, TypeError, IndexError, KeyError, AttributeError):
        return True
    finally:
        client.close()
    return True


def forbidden(verb: Verb, user: str, *, inside: bool) -> bool:
    """Should the server refuse it to this user, with a key of the queues or with another?"""
    dangerous = bool(verb.categories & {"@dangerous", "@admin"}) and verb.name not in HARMLESS
    return dangerous or (not inside and verb.keyed) or (user == "ops_read" and "write" in verb.flags)
