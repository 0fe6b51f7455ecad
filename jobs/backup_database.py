"""Back the database up, every night.

Invariant: what has a manifest was whole when it was written; what was not has neither key nor manifest.
Source: `opslib/areas/backup_writer.py`; the backup is proven by `verify_backup` and `restore_drill`.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel

from opslib.areas import backup_writer
from opslib.areas.backups import exclusively
from opslib.run import Run
from opslib.spec import Cron, Job, NoParams
from opslib.storage import Storage

JOB = Job(
    name="backup-database",
    title="Nightly backup of the database",
    schedule=Cron("30 1 * * *"),
    max_age=26 * 3600,  # two hours late is somebody's business
    timeout=6 * 3600,
    retries=2,
    retry_after=300,  # a store or a server that restarts is back by then
    needs=("DATABASE_URL", "R2_ENDPOINT", "R2_BUCKET", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"),
)


class Result(BaseModel):
    """What was written.

    Attributes:
        key: The dump's key; its manifest's is `.json` behind it.
        sha256: Of the object.
        size: Bytes of the object.
        dump_size: Bytes of the dump before compression.
        tables: How many.
        rows: Of all of them.
        seconds: How long dump and upload took.
    """

    key: str
    sha256: str
    size: int
    dump_size: int
    tables: int
    rows: int
    seconds: float


def run(run: Run, params: NoParams) -> Result:
    """Dump, upload, say what it is.

    Raises:
        JobError: The dump did not come to its end, or another one is running.
        SourceError: The database or the bucket failed.
    """
    del params

    def progress(done: int, total: int) -> None:
        run.check_cancelled()
        run.progress(done, max(total, done), unit="bytes", note="dumping")

    settings = run.settings.require(*JOB.needs)
    with exclusively(settings.require_ops(), JOB.name) as turn:
        made = backup_writer.write(
            settings, Storage.of(settings), turn, now=datetime.now(UTC), run=run.id, progress=progress
        )
    run.log.info("backup.written", key=made.key, bytes=made.size, rows=made.rows, seconds=made.seconds)
    return Result(
        key=made.key,
        sha256=made.sha256,
        size=made.size,
        dump_size=made.dump_size,
        tables=len(made.tables),
        rows=made.rows,
        seconds=made.seconds,
    )
