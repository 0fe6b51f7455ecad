"""Prove the audit, copy its old events to the bucket, and note its head where the database's owner cannot reach it.

Invariant: what happened up to the last run cannot be changed without `opsctl audit verify` finding it.
Sources: `opslib/audit_chain.py`, `opslib/audit_store.py`. Without a bucket the head goes to the log alone, which is
worth what the log's place is worth; `opsctl audit verify --head` takes it from there.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel

from opslib import audit, audit_chain, audit_store
from opslib.audit import Event, Outcome
from opslib.errors import JobError
from opslib.run import Run
from opslib.spec import Cron, Job, NoParams
from opslib.storage import Storage

JOB = Job(
    name="audit-anchor",
    title="Audit: verify, seal, anchor",
    schedule=Cron("20 3 * * *"),
    max_age=26 * 3600,
    timeout=3600,
    retries=3,
    retry_after=300,
    needs=("DATABASE_URL",),
)


class Result(BaseModel):
    """What was done.

    Attributes:
        events: The chain's length.
        hash: Its head, in hex.
        segments: Keys of the segments sealed.
        anchor: Key of the head noted; None without a bucket.
    """

    events: int
    hash: str
    segments: list[str]
    anchor: str | None


def run(run: Run, params: NoParams) -> Result:
    """Verify first: a chain that is damaged is neither sealed nor anchored as if it were whole.

    Raises:
        JobError: The chain is damaged; the message says where.
        OpsError: The database or the bucket is away.
    """
    del params
    dsn = run.settings.require_ops()
    storage = Storage.of(run.settings) if run.settings.has("R2_BUCKET") else None
    report = audit_chain.verify(dsn, audit_store.noted(storage) if storage else ())
    run.progress(report.events, unit="events", note="verified")
    with audit.connect(dsn) as connection:
        audit.verified(connection, report.findings, report.events, report.anchors)
        if not report.ok:
            raise JobError(f"the audit is damaged: {'; '.join(report.findings)}; see docs/operators.md")
        run.check_cancelled()
        now = datetime.now(UTC)
        sealed = []
        for segment in audit_store.seal(connection, storage, now) if storage else ():
            sealed.append(segment.key)
            particulars = {"first": segment.first, "last": segment.last, "last_hash": segment.hash.hex()}
            audit.append(connection, Event("OPS_AUDIT_SEAL", "audit.seal", segment.key, particulars), Outcome.ALLOWED)
            run.progress(segment.last, report.events, unit="events", note="sealed")
        head = audit.head(connection)
        key = audit_store.anchor(storage, head, now) if storage else None
        run.log.info("audit_anchored", events=head.seq, hash=head.hash.hex(), at=head.at.isoformat(), key=key)
        particulars = {"events": head.seq, "hash": head.hash.hex()}
        audit.append(connection, Event("OPS_AUDIT_ANCHOR", "audit.anchor", key or "log", particulars), Outcome.ALLOWED)
    return Result(events=head.seq, hash=head.hash.hex(), segments=sealed, anchor=key)
