"""The two Redis users of ours, declared once: `ops_read` looks at the queues, `ops_write` is for operators' actions.

Both reach the queues' keys and nothing else. Categories alone would let too much in: `@connection` holds CLIENT KILL,
`@write` holds FLUSHALL and FUNCTION FLUSH, `@scripting` holds SCRIPT FLUSH; so what is dangerous goes out again, and
the few harmless commands among those come back by name. Tried command by command in tests/service/test_redis_acl.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

_SAFE = ("-@dangerous", "-@admin", "-function")
_NEEDED = ("+client|list", "+info")
"""Who works on a queue is told by its clients' names; the official client asks for the server's version."""

USERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ops_read": (
            *("+@read", "+@connection", *_SAFE, *_NEEDED),
            *("+eval_ro", "+evalsha_ro", "+script|load", "+script|exists"),
        ),
        "ops_write": (
            *("+@read", "+@write", "+@connection", *_SAFE, *_NEEDED),
            *("+eval", "+evalsha", "+eval_ro", "+evalsha_ro", "+script|load", "+script|exists"),
        ),
    }
)
"""What each may do, in the order Redis reads it."""


def rules(user: str, prefix: str) -> list[str]:
    """The rules of one user for ACL SETUSER, without a password.

    Args:
        user: `ops_read` or `ops_write`.
        prefix: BullMQ's key prefix.
    """
    keys = re.sub(r"([\\*?\[\]])", r"\\\1", prefix)
    return ["reset", "on", f"~{keys}:*", *USERS[user]]
