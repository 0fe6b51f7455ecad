"""Proof that the audit is what was written: every hash anew, every number in turn, the head, the anchors outside.

The text that is hashed is built here, not by a function of the database: who rewrote that function would be believed.
An edit, a deletion, a swap or an insertion breaks the chain at that place. A tail cut off together with its head leaves
a chain that is whole: only a head noted elsewhere (`audit_store`) knows better. So does a restore, which is why one is
written into the chain (`RESTORED`), with the head it lost; `verify` then tells of it instead of failing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from opslib import audit
from opslib.audit import Head

GENESIS = bytes(32)
"""What stands before the first event."""
RESTORED = "audit.restored"
CONNECTIONS = 4
"""Ranges read at once; the server spends a processor on each."""
RANGE = 50_000
"""Events of one range at least; below that another connection costs more than it saves."""
SHOWN = 5
"""Damaged places named per range."""

TEXT = """concat_ws(E'\\x1f',
    seq, at, who, role, host, address, event, action, target, payload, reason, outcome, error,
    coalesce(intent, 0), coalesce(duration_ms, -1))"""
"""The hashed text of a row of `ops.audit_events`, as migration 0006 writes it; `audit.connect` sets UTC and ISO."""

FIELDS = (
    *("seq", "at", "who", "role", "host", "address", "event", "action", "target", "payload", "reason", "outcome"),
    *("error", "intent", "ms"),
)
"""Its parts, in order."""

_RANGE = f"""
SELECT count(*), min(seq), max(seq), count(*) FILTER (WHERE outcome = 'intent'), count(intent),
       (array_agg(seq) FILTER (WHERE wrong))[1:{SHOWN}], count(*) FILTER (WHERE wrong)
FROM (
    SELECT seq, outcome, intent,
           -- The number is in the text and the hash before it under the hash: a gap or a double shows as well.
           hash IS DISTINCT FROM sha256(
               coalesce(lag(hash) OVER (ORDER BY seq), %(genesis)s) || convert_to({TEXT}, 'UTF8')) AS wrong
    FROM ops.audit_events WHERE seq BETWEEN %(first)s - 1 AND %(last)s
) AS compared
WHERE seq >= %(first)s
"""

_STATE = """
SELECT h.seq, h.hash, h.at,
       (SELECT e.hash FROM ops.audit_events e WHERE e.seq = h.seq LIMIT 1),
       (SELECT count(*) FROM ops.audit_events e WHERE e.seq > h.seq OR e.seq < 1),
       (SELECT coalesce(sum(t.events), 0) FROM ops.audit_totals t),
       (SELECT count(*) FROM ops.audit_open)
FROM ops.audit_head h
"""

_RESTORES = """
SELECT seq, at, who, reason, (payload ->> 'kept')::bigint, (payload ->> 'lost')::bigint, payload ->> 'lost_hash'
FROM ops.audit_events
WHERE action = %s AND outcome = 'allowed' AND role IN ('super', 'owner', 'superuser') ORDER BY seq
"""


@dataclass(frozen=True, slots=True)
class Restore:
    """The chain's own word that a restore took it back.

    Attributes:
        seq: Of the event that says so.
        at: When.
        who: The login that said so.
        reason: In their words.
        kept: The last event noted outside that the restore brought back; 0 if none was.
        lost: The last one noted that it did not.
        lost_hash: Its hash, in hex.
    """

    seq: int
    at: datetime
    who: str
    reason: str
    kept: int
    lost: int
    lost_hash: str

    def explains(self, anchor: Head) -> bool:
        """Was this head noted on the branch that was lost?"""
        if anchor.seq == self.lost:
            return anchor.hash.hex() == self.lost_hash
        return self.kept < anchor.seq < self.lost and anchor.at <= self.at

    def __str__(self) -> str:
        """For people."""
        return (
            f"a restore was accepted at event {self.seq} ({_minute(self.at)}, by {self.who}: {self.reason}): "
            f"of those noted, events {self.kept + 1} to {self.lost} are lost, in whole or in part"
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification found.

    Attributes:
        head: The chain's end.
        events: How many were proved.
        seconds: How long it took.
        anchors: How many heads noted outside were compared.
        damage: What is wrong with the chain itself.
        unexplained: Heads noted outside that do not stand in the chain, and no restore explains it.
        common: The last head noted outside that stands; 0 if none does.
        restores: Restores that were accepted, to be read by a person.
    """

    head: Head
    events: int
    seconds: float
    anchors: int
    damage: Sequence[str]
    unexplained: Sequence[Head]
    common: int
    restores: Sequence[Restore]

    @property
    def findings(self) -> list[str]:
        """All that is wrong, in words; empty when nothing is."""
        return [*self.damage, *(self._contradicts(anchor) for anchor in self.unexplained)]

    def _contradicts(self, anchor: Head) -> str:
        if anchor.seq > self.head.seq:
            return (
                f"{_minute(anchor.at)} there were {anchor.seq} events, now {self.head.seq}: the tail was cut, "
                "or the database restored (then say so: `opsctl audit accept-restore`)"
            )
        return f"event {anchor.seq} is not the one noted {_minute(anchor.at)}: the chain was rewritten there or before"

    @property
    def ok(self) -> bool:
        """Is nothing wrong?"""
        return not self.findings


@dataclass(frozen=True, slots=True)
class _Part:
    count: int
    first: int | None
    last: int | None
    intents: int
    ended: int
    wrong: Sequence[int]
    wrongs: int


def verify(dsn: str, anchors: Iterable[Head] = ()) -> Report:
    """Prove the chain up to its present head, and hold it against heads noted outside the database.

    Args:
        dsn: The database of schema `ops`, under a login that reads the audit.
        anchors: Those heads.

    Raises:
        OpsError: It cannot be read.
    """
    started = time.monotonic()
    noted = sorted(set(anchors), key=lambda anchor: (anchor.seq, anchor.at))
    with audit.connect(dsn, append=False) as connection:
        # One snapshot, so that an event appended meanwhile is neither missing nor too many.
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        snapshot = _one(connection, "SELECT pg_export_snapshot()")[0]
        seq, hash_, at, last_hash, strays, total, still_open = _one(connection, _STATE)
        head = Head(seq, bytes(hash_), at)
        restores = [Restore(*row) for row in connection.execute(_RESTORES, (RESTORED,)).fetchall()]
        held = dict(
            connection.execute(
                "SELECT seq, hash FROM ops.audit_events WHERE seq = ANY (%s)", ([anchor.seq for anchor in noted],)
            ).fetchall()
        )
        spans = list(_spans(head.seq))
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            parts = list(pool.map(lambda span: _range(dsn, str(snapshot), *span), spans))
        connection.execute("COMMIT")
    findings = [finding for span, part in zip(spans, parts, strict=True) for finding in _damage(span, part)]
    if (bytes(last_hash) if last_hash else GENESIS) != head.hash:
        findings.append(f"the head is event {head.seq}, and another stands there: the tail was cut or replaced")
    if strays:
        findings.append(f"{strays} events stand outside the numbers 1 to {head.seq}")
    if total != head.seq:
        findings.append(f"the totals count {total} events, the head {head.seq}")
    unfinished = sum(part.intents - part.ended for part in parts)
    if unfinished != still_open:
        findings.append(f"{unfinished} intents have no outcome, {still_open} are listed as open")
    stands = [anchor for anchor in noted if bytes(held.get(anchor.seq, b"")) == anchor.hash]
    unexplained = [
        anchor for anchor in noted if anchor not in stands and not any(restore.explains(anchor) for restore in restores)
    ]
    return Report(
        head=head,
        events=sum(part.count for part in parts),
        seconds=time.monotonic() - started,
        anchors=len(noted),
        damage=findings,
        unexplained=unexplained,
        common=max((anchor.seq for anchor in stands), default=0),
        restores=restores,
    )


def _spans(last: int) -> Iterator[tuple[int, int]]:
    size = max(RANGE, -(-last // CONNECTIONS))
    for first in range(1, last + 1, size):
        yield first, min(first + size - 1, last)


def _range(dsn: str, snapshot: str, first: int, last: int) -> _Part:
    with audit.connect(dsn, append=False) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        # One pass in order; neither sorting the table nor compiling the expression would pay.
        connection.execute("SET LOCAL jit = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        row = _one(connection, _RANGE, {"first": first, "last": last, "genesis": GENESIS})
        count, lowest, highest, intents, ended, wrong, wrongs = row
        return _Part(count, lowest, highest, intents, ended, wrong or (), wrongs)


def _damage(span: tuple[int, int], part: _Part) -> Iterator[str]:
    first, last = span
    if part.wrong:
        named = ", ".join(map(str, part.wrong)) + (" …" if part.wrongs > len(part.wrong) else "")
        yield f"the chain is broken at event {named}: edited, swapped, put in, or the one before it deleted"
    if (part.count, part.first, part.last) != (last - first + 1, first, last):
        yield f"of the events {first} to {last} there are {part.count}"


def _minute(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _one(connection: psycopg.Connection, sql: str, parameters: Mapping[str, Any] | None = None) -> tuple[Any, ...]:
    row = connection.execute(sql.encode(), parameters).fetchone()
    if row is None:
        raise audit.missing_head()
    return row


def chained(prior: bytes, fields: Sequence[str]) -> bytes:
    """The hash of one event from its texts in the order of `FIELDS`: what a sealed segment is proved by, offline."""
    return hashlib.sha256(prior + "\x1f".join(fields).encode()).digest()
