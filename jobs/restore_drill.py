"""Restore the newest backup into a scratch database and count its rows: the only proof that it can be restored.

Invariant: a drill that did not come to its end, or found one row more or less, is a failure.
Source: the bucket; the scratch database is on RESTORE_DRILL_DATABASE_URL's server or a throw-away one.
"""

from __future__ import annotations

from pydantic import BaseModel

from opslib.areas import backup_proofs, backups
from opslib.errors import JobError
from opslib.run import Run
from opslib.spec import Cron, Job, NoParams
from opslib.storage import Storage

JOB = Job(
    name="restore-drill",
    title="Newest proven backup restored into a scratch database and compared",
    schedule=Cron("0 5 * * *"),
    max_age=50 * 3600,  # one may be missed: the digest is proven every night
    timeout=6 * 3600,
    needs=("DATABASE_URL", "R2_ENDPOINT", "R2_BUCKET", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"),
)


class Result(BaseModel):
    """What was proven.

    Attributes:
        key: The backup.
        tables: Tables compared.
        rows: Rows in them.
        seconds: How long restoring and comparing took.
    """

    key: str
    tables: int
    rows: int
    seconds: float


def run(run: Run, params: NoParams) -> Result:
    """Drill.

    Raises:
        JobError: It cannot be restored, differs from its manifest, or another drill is running.
        NotFoundError: There is no backup.
        SourceError: The bucket or the scratch database's server failed.
    """
    del params
    settings = run.settings.require(*JOB.needs)
    storage = Storage.of(settings)

    def progress(done: float, total: float, unit: str, note: str) -> None:
        run.check_cancelled()
        run.progress(done, total, unit=unit, note=note)

    with backups.exclusively(settings.require_ops(), JOB.name):
        backup = backups.one(storage)
        check, manifest = backup_proofs.drill(settings, storage, backup, run=run.id, progress=progress)
    if not check.ok or manifest is None:
        raise JobError(check.error)
    return Result(key=backup.key, tables=len(manifest.tables), rows=manifest.rows, seconds=check.seconds)
