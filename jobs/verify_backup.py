"""Read the newest backup again, to its last byte, and compare it with its manifest.

Invariant: "could not verify" is a failure. A backup counts as proven only by a check that came to its end.
Source: the bucket; what was found is remembered in `ops.backup_checks`.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from opslib.areas import backup_proofs, backups
from opslib.errors import JobError
from opslib.run import Run
from opslib.spec import Cron, Job
from opslib.storage import Storage


class Params(BaseModel):
    """Which."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str | None = Field(None, description="This one; the newest if it is not given.")
    every: bool = Field(default=False, description="All of them.")


JOB = Job(
    name="verify-backup",
    title="Newest backup read again and compared with its manifest",
    schedule=Cron("30 3 * * *"),  # two hours after the backup
    max_age=26 * 3600,
    timeout=6 * 3600,
    retries=2,
    retry_after=300,
    params=Params,
    needs=("DATABASE_URL", "R2_ENDPOINT", "R2_BUCKET", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"),
)


class Result(BaseModel):
    """What was proven.

    Attributes:
        verified: Keys that are whole.
    """

    verified: list[str]


def run(run: Run, params: Params) -> Result:
    """Verify.

    Raises:
        JobError: One is damaged or cannot be proven; the others were looked at all the same.
        NotFoundError: There is no such backup.
        StorageError: The bucket cannot be listed.
    """
    settings = run.settings.require(*JOB.needs)
    storage = Storage.of(settings)
    chosen = backups.listing(storage) if params.every else (backups.one(storage, params.key),)
    verified, failures = [], []
    for number, backup in enumerate(chosen, 1):

        def progress(done: int, backup: backups.Backup = backup, number: int = number) -> None:
            run.check_cancelled()
            note = f"{backup.key}, {number} of {len(chosen)}"
            run.progress(done, max(backup.stored.size, done), unit="bytes", note=note)

        check = backup_proofs.verify(settings, storage, backup, run=run.id, progress=progress)
        if check.ok:
            verified.append(backup.key)
        else:
            failures.append(check.error)
    if failures or not verified:
        raise JobError("; ".join(failures) or "there is no backup to verify")
    return Result(verified=verified)
