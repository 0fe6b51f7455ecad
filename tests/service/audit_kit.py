"""Ways to change an audit behind its back: what tests and bench share."""

from __future__ import annotations

import psycopg

DAMAGE = {
    "edited: target": "UPDATE ops.audit_events SET target = 'other' WHERE seq = 5",
    "edited: payload": "UPDATE ops.audit_events SET payload = '[9]' WHERE seq = 5",
    "edited: who": "UPDATE ops.audit_events SET who = 'somebody' WHERE seq = 5",
    "edited: by a microsecond": "UPDATE ops.audit_events SET at = at + interval '1 microsecond' WHERE seq = 5",
    "edited: moved between fields": "UPDATE ops.audit_events SET target = '', reason = target || reason WHERE seq = 5",
    "edited: the outcome": "UPDATE ops.audit_events SET outcome = 'refused' WHERE seq = 5",
    "edited: its hash too": """UPDATE ops.audit_events SET target = 'x', hash = sha256(hash) WHERE seq = 5""",
    "deleted": "DELETE FROM ops.audit_events WHERE seq = 5",
    "deleted: the first": "DELETE FROM ops.audit_events WHERE seq = 1",
    "deleted: the last": "DELETE FROM ops.audit_events WHERE seq = 9",
    "deleted and closed up": """DELETE FROM ops.audit_events WHERE seq = 5;
        UPDATE ops.audit_events SET seq = seq - 1 WHERE seq > 5""",
    "swapped": """UPDATE ops.audit_events SET seq = -1 WHERE seq = 4; UPDATE ops.audit_events SET seq = 4 WHERE seq = 5;
        UPDATE ops.audit_events SET seq = 5 WHERE seq = -1""",
    "put in": """INSERT INTO ops.audit_events SELECT (jsonb_populate_record(e, '{"seq": 10}')).* FROM ops.audit_events e
        WHERE seq = 9""",
    "all gone": "TRUNCATE ops.audit_events",
    "tail cut, head moved": """DELETE FROM ops.audit_events WHERE seq > 6; UPDATE ops.audit_head SET seq = e.seq,
        hash = e.hash FROM ops.audit_events e WHERE e.seq = 6""",
    "an intent hidden": "DELETE FROM ops.audit_open",
}
"""Statements for a chain of nine events, the last an intent, by a superuser whom no trigger stops."""


def unlocked(owner: psycopg.Connection, statement: str) -> None:
    """A superuser switches the trigger off, does it, and switches it on again."""
    owner.execute("ALTER TABLE ops.audit_events DISABLE TRIGGER ALL")
    owner.execute(statement.encode())
    owner.execute(
        "ALTER TABLE ops.audit_events ENABLE ALWAYS TRIGGER audit_immutable, ENABLE ALWAYS TRIGGER audit_kept"
    )
