"""Delete the backups no rule keeps, and nothing a rule might miss.

Invariant: `plan` of `opslib/areas/retention.py` decides and touches nothing; `apply` does what it says, word for word;
a dry run is a run without `apply`. What is not named as our backups are is never looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from opslib.areas import archive, backups
from opslib.areas.queries import NAMED
from opslib.areas.retention import Backup, IncompleteError, Listing, Plan, Policy, plan
from opslib.errors import JobError
from opslib.run import Run
from opslib.session import session
from opslib.settings import Settings
from opslib.spec import Cron, Job
from opslib.storage import Storage


class Params(BaseModel):
    """How."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dry_run: bool = Field(default=False, description="Decide and say, but touch nothing.")
    max_share: float | None = Field(
        None, ge=0, le=1, description="Remove at most this share this once, instead of OPS_BACKUP_MAX_REMOVED_SHARE."
    )


def planned(settings: Settings, params: Params) -> Sequence[str]:
    """What a run would do now, a step to a line.

    Raises:
        JobError, StorageError, SourceError: See `run`.
    """
    made = decide(settings, Storage.of(settings), params)
    steps = list(made.lines())
    return [*(steps or ["nothing to delete"]), f"backups that stay: {len(made.keep)}"]


JOB = Job(
    name="retention",
    title="Old backups deleted by plan",
    schedule=Cron("0 5 * * *"),  # when the night's backup is written and verified
    max_age=26 * 3600,
    timeout=3600,
    retries=2,
    retry_after=300,
    params=Params,
    plan=planned,
    needs=("DATABASE_URL", "R2_ENDPOINT", "R2_BUCKET", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"),
)


class Result(BaseModel):
    """What was done, or in a dry run would be.

    Attributes:
        dry_run: Nothing was touched.
        steps: Each step in words.
        kept: Every backup that stays, with the rules that keep it.
        removed: Backups deleted.
        aborted: Unfinished uploads aborted.
    """

    dry_run: bool
    steps: list[str]
    kept: dict[str, tuple[str, ...]]
    removed: int
    aborted: int


def run(run: Run, params: Params) -> Result:
    """Look, decide, and unless it is a dry run do it.

    Raises:
        JobError: The plan was refused; nothing was removed. See `plan`.
        StorageError: The bucket could not be listed in full, or a deletion failed; what is left is next time's.
        SourceError: Our own records could not be read.
    """
    settings = run.settings.require(*JOB.needs)
    storage = Storage.of(settings)
    made = decide(settings, storage, params)
    if not params.dry_run:
        apply(made, storage, run)
    return Result(
        dry_run=params.dry_run,
        steps=list(made.lines()),
        kept=made.keep,
        removed=len(made.remove),
        aborted=len(made.abort),
    )


def decide(settings: Settings, storage: Storage, params: Params) -> Plan:
    """What is to go, and what stays; touches nothing.

    Raises:
        JobError, StorageError, SourceError: See `run`.
    """
    policy = Policy(
        daily=settings.ops_backup_keep_days,
        weekly=settings.ops_backup_keep_weeks,
        monthly=settings.ops_backup_keep_months,
        max_share=settings.ops_backup_max_removed_share if params.max_share is None else params.max_share,
    )
    return plan(look(storage, settings.require_ops()), policy, datetime.now(UTC))


def look(storage: Storage, dsn: str) -> Listing:
    """What is in the bucket, and what our records say of it.

    Raises:
        StorageError: The bucket could not be listed in full.
        SourceError: Our own records could not be read.
    """
    with session(dsn, JOB.name) as connection:
        known = connection.execute(NAMED["backup_runs"].sql).fetchall()[0]
    # Listed after the records were read: what they name must be there by now.
    objects = storage.list(backups.PREFIX)
    checks = backups.checks(dsn)
    found = backups.among(objects)
    keys = {backup.key for backup in found}
    manifests = (one.key.removesuffix(backups.MANIFEST) for one in objects if one.key.endswith(backups.MANIFEST))
    uploads = (upload for upload in storage.pending(backups.PREFIX) if backups.time_of(upload.key) is not None)
    return Listing(
        backups=tuple(
            Backup(
                key=backup.key,
                taken_at=backup.at,
                modified=backup.written,
                bytes=backup.stored.size,
                verified=_proven(storage, backup, checks),
                manifest=backup.key + backups.MANIFEST if backup.has_manifest else None,
            )
            for backup in found
        ),
        orphans=tuple(
            key + backups.MANIFEST for key in manifests if backups.time_of(key) is not None and key not in keys
        ),
        uploads=(*uploads, *storage.pending(archive.PREFIX)),
        expected=frozenset({known["newest"]} - {None}),
        running_since=known["running_since"],
    )


def _proven(
    storage: Storage, backup: backups.Backup, checks: Mapping[tuple[str, backups.Kind], Mapping[str, Any]]
) -> bool:
    """Was this very content proven, and never found damaged since?"""
    verify, drill = checks.get((backup.key, backups.Kind.VERIFY)), checks.get((backup.key, backups.Kind.DRILL))
    if not (verify and verify["ok"]) and (verify or not (drill and drill["ok"])):
        return False
    try:
        written = backups.manifest(storage, backup)
    except JobError:
        return False  # no manifest, or it was altered
    return any(check["sha256"] == written.sha256 for check in (verify, drill) if check and check["ok"])


def apply(made: Plan, storage: Storage, run: Run) -> None:
    """Do what the plan says, word for word.

    The manifest goes before its backup: killed in between, an object stays that nothing vouches for, which the next
    plan removes; the other way round a manifest would stay that vouches for nothing.

    Raises:
        IncompleteError: The newest proven backup is not there any more; nothing was removed.
        StorageError: A deletion failed.
    """
    if made.anchor is not None:
        there = storage.head(made.anchor.key)
        if there is None or there.size != made.anchor.bytes:
            raise IncompleteError(f"{made.anchor.key} is not what was listed: nothing was removed; look at the bucket")
    for orphan in made.orphans:
        storage.delete(orphan)
    for number, backup in enumerate(made.remove):
        run.check_cancelled()
        run.progress(number, len(made.remove), unit="backups", note=backup.key)
        if backup.manifest is not None:
            storage.delete(backup.manifest)
        storage.delete(backup.key)
    for upload in made.abort:
        storage.abort(upload)
