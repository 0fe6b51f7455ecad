"""The audit outside its database: heads noted in the object store, and old events sealed there.

Everything needed to compare is in the keys, so that one listing is enough; give the bucket a lock rule on `audit/` (R2:
bucket locks, S3: object lock), and nobody who owns the database can unsay them. Events are never deleted from the
table; a sealed segment is a second copy that proves itself: each line holds the texts that were hashed.

    audit/anchors/20260131T030000Z-000000000150-<hash>.json      a head
    audit/segments/000000000101-000000000150-<hash>.ndjson.gz    events and the hash of the last
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from opslib import audit, audit_chain
from opslib.audit import Event, Head, Outcome
from opslib.audit_chain import FIELDS, GENESIS, TEXT, Report
from opslib.errors import NotFoundError, OpsError
from opslib.storage import Storage

ANCHORS, SEGMENTS = "audit/anchors/", "audit/segments/"
SEGMENT_EVENTS = 20_000
"""Events of one segment: some megabytes before compression."""
SEAL_AFTER = timedelta(days=1)
"""Younger events wait: a segment a day is enough."""

_ANCHOR = re.compile(r"(?P<at>\d{8}T\d{6}Z)-(?P<seq>\d{12})-(?P<hash>[0-9a-f]{64})\.json")
_SEGMENT = re.compile(r"(?P<first>\d{12})-(?P<last>\d{12})-(?P<hash>[0-9a-f]{64})\.ndjson\.gz")


@dataclass(frozen=True, slots=True)
class Segment:
    """Sealed events.

    Attributes:
        first: The first event's number.
        last: The last one's.
        hash: The last one's hash.
        key: Where it lies.
        sealed_at: When it was written.
    """

    first: int
    last: int
    hash: bytes
    key: str
    sealed_at: datetime

    @property
    def head(self) -> Head:
        """What it says about the chain."""
        return Head(self.last, self.hash, self.sealed_at)


def anchors(storage: Storage) -> list[Head]:
    """Every head noted in the store.

    Raises:
        StorageError: They cannot be listed, all of them.
    """
    found = (_ANCHOR.fullmatch(one.key.removeprefix(ANCHORS)) for one in storage.list(ANCHORS))
    return [Head(int(m["seq"]), bytes.fromhex(m["hash"]), _moment(m["at"])) for m in found if m]


def segments(storage: Storage) -> list[Segment]:
    """Every sealed segment, in the order of their events.

    Raises:
        StorageError: They cannot be listed, all of them.
    """
    found = ((_SEGMENT.fullmatch(one.key.removeprefix(SEGMENTS)), one) for one in storage.list(SEGMENTS))
    return [
        Segment(int(m["first"]), int(m["last"]), bytes.fromhex(m["hash"]), one.key, one.modified)
        for m, one in found
        if m
    ]


def noted(storage: Storage) -> list[Head]:
    """Everything the store says about the chain, for `audit_chain.verify`.

    Raises:
        StorageError: It cannot be listed.
    """
    return [*anchors(storage), *(segment.head for segment in segments(storage))]


def anchor(storage: Storage, head: Head, now: datetime) -> str:
    """Note a head; its key.

    Raises:
        StorageError: It could not be written.
    """
    key = f"{ANCHORS}{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{head.seq:012d}-{head.hash.hex()}.json"
    body = {"events": head.seq, "hash": head.hash.hex(), "written_at": head.at.isoformat(), "noted_at": now.isoformat()}
    storage.put(key, json.dumps(body).encode(), content_type="application/json")
    return key


def seal(connection: psycopg.Connection, storage: Storage, now: datetime) -> Iterator[Segment]:
    """Copy events older than `SEAL_AFTER` that no segment of this chain holds yet, a segment at a time.

    Args:
        connection: From `audit.connect`, of a login that reads the audit.
        storage: The bucket.
        now: The time.

    Raises:
        StorageError: One could not be written; those before it are.
    """
    first, prior = _sealed(connection, storage)
    row = connection.execute("SELECT max(seq) FROM ops.audit_events WHERE at < %s", (now - SEAL_AFTER,)).fetchone()
    old = (row and row[0]) or 0
    while first <= old:
        last = min(first + SEGMENT_EVENTS - 1, old)
        body, prior = _body(connection, first, last, prior)
        key = f"{SEGMENTS}{first:012d}-{last:012d}-{prior.hex()}.ndjson.gz"
        storage.put(key, body, content_type="application/gzip")
        yield Segment(first, last, prior, key, now)
        first = last + 1


def prove(storage: Storage, segment: Segment, prior: bytes) -> tuple[bytes, Sequence[str]]:
    """Hash a sealed segment anew; the hash of its last event, and what is wrong.

    Args:
        storage: The bucket.
        segment: Which.
        prior: The hash of the event before its first.

    Raises:
        StorageError: It cannot be read.
    """
    wrong: list[str] = []
    expected = segment.first
    try:
        lines = gzip.decompress(storage.get(segment.key)).splitlines()
        for line in lines:
            fields = json.loads(line)
            prior = audit_chain.chained(prior, [fields[name] for name in FIELDS])
            if fields["seq"] != str(expected) or fields["hash"] != prior.hex():
                wrong.append(f"{segment.key}: event {expected} is not what was sealed")
                break
            expected += 1
    except (OSError, EOFError, ValueError, KeyError, TypeError) as exc:
        wrong.append(f"{segment.key}: cannot be read as a segment ({type(exc).__name__})")
    if not wrong and (expected, prior) != (segment.last + 1, segment.hash):
        wrong.append(f"{segment.key}: it does not end as its name says")
    return prior, wrong


def accept(connection: psycopg.Connection, report: Report, reason: str) -> Head:
    """Write into the chain that a restore took it back behind heads noted outside; the new head.

    Args:
        connection: From `audit.connect`, of a super or the owner: of nobody else `verify` takes it.
        report: A verification that found nothing but such heads.
        reason: Which restore.

    Raises:
        NotFoundError, OpsError: See `acceptable`.
    """
    acceptable(report)
    lost = report.unexplained[-1]
    payload = {"kept": report.common, "lost": lost.seq, "lost_hash": lost.hash.hex()}
    said = Event("OPS_AUDIT_RESTORED", audit_chain.RESTORED, f"event {lost.seq}", payload, reason)
    return audit.append(connection, said, Outcome.ALLOWED)


def acceptable(report: Report) -> None:
    """Is there something that a restore would explain, and nothing that it would not?

    Raises:
        NotFoundError: There is nothing to accept.
        OpsError: The chain itself is damaged.
    """
    if report.damage:
        raise OpsError(f"no restore does this: {'; '.join(report.damage)}")
    if not report.unexplained:
        raise NotFoundError("every head noted outside stands in the chain, or is explained: no restore to accept")


def _sealed(connection: psycopg.Connection, storage: Storage) -> tuple[int, bytes]:
    """The first event not sealed, and the hash before it. Segments of a branch that a restore lost do not count."""
    done = {segment.last: segment.hash for segment in segments(storage)}
    rows = connection.execute(
        "SELECT seq, hash FROM ops.audit_events WHERE seq = ANY (%s) ORDER BY seq DESC", (list(done),)
    )
    for seq, hash_ in rows.fetchall():
        if bytes(hash_) == done[seq]:
            return seq + 1, bytes(hash_)
    return 1, GENESIS


_LINES = f"""
SELECT hash, string_to_array({TEXT}, E'\\x1f') FROM ops.audit_events WHERE seq BETWEEN %s AND %s ORDER BY seq
"""


def _body(connection: psycopg.Connection, first: int, last: int, prior: bytes) -> tuple[bytes, bytes]:
    lines = []
    for hash_, texts in connection.execute(_LINES.encode(), (first, last)).fetchall():
        lines.append(json.dumps({**dict(zip(FIELDS, texts, strict=True)), "hash": bytes(hash_).hex()}))
        prior = bytes(hash_)
    return gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0), prior


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
