"""Proving backups, and remembering it: whatever ends a proof before its end is remembered as a failure."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from opslib.areas import backup_reader, backups, pg_tools, scratch
from opslib.areas.backups import Backup, Check, Kind, Manifest
from opslib.errors import CancelledError, JobError, OpsError
from opslib.redact import redact
from opslib.settings import Settings
from opslib.storage import Storage

Progress = Callable[[float, float, str, str], None]
"""Told how much of how much, in what unit, and what is being done; raises to stop."""


@dataclass(slots=True)
class _Attempt:
    """What is known while it runs.

    Attributes:
        manifest: Once it was read.
        error: Why it failed.
    """

    manifest: Manifest | None = None
    error: str = ""


@contextlib.contextmanager
def _attempt(settings: Settings, backup: Backup, kind: Kind, run: int, made: list[Check]) -> Iterator[_Attempt]:
    """Turn what happens in the block into a remembered check. A cancelled one proves nothing and says nothing."""
    attempt, started = _Attempt(), time.monotonic()
    try:
        yield attempt
    except CancelledError:
        raise
    except OpsError as exc:
        attempt.error = str(redact(str(exc))) or type(exc).__name__
    check = Check(
        key=backup.key,
        kind=kind,
        ok=not attempt.error,
        sha256=attempt.manifest.sha256 if attempt.manifest else "",
        bytes=backup.stored.size,
        seconds=round(time.monotonic() - started, 3),
        error=attempt.error,
    )
    assert settings.ops_dsn is not None  # noqa: S101 - the jobs need it
    backups.remember(settings.ops_dsn.get_secret_value(), check, run)
    made.append(check)


def verify(settings: Settings, storage: Storage, backup: Backup, *, run: int, progress: Callable[[int], None]) -> Check:
    """Read it to its end; what was found, which is remembered, too.

    Raises:
        CancelledError: Somebody wants it to stop.
        SourceError: It could not be remembered.
    """
    made: list[Check] = []
    with _attempt(settings, backup, Kind.VERIFY, run, made) as attempt:
        attempt.manifest = backups.manifest(storage, backup)
        backup_reader.verify(settings, storage, attempt.manifest, progress)
    return made[0]


def drill(
    settings: Settings, storage: Storage, backup: Backup, *, run: int, progress: Progress
) -> tuple[Check, Manifest | None]:
    """Restore it into a scratch database and compare; what was found, which is remembered, too.

    One whose digest nobody has proven yet is read for that first: a drill of an older one would hide that the newest is
    damaged.

    Raises:
        CancelledError: Somebody wants it to stop.
        SourceError: It could not be remembered.
    """
    made: list[Check] = []
    with _attempt(settings, backup, Kind.DRILL, run, made) as attempt:
        attempt.manifest = manifest = backups.manifest(storage, backup)
        _proven(settings, storage, backup, manifest, run=run, progress=progress)
        tools = pg_tools.choose(manifest.major, settings)
        with contextlib.ExitStack() as stack:
            if settings.restore_drill_database_url is not None:
                place = settings.restore_drill_database_url.get_secret_value()
                backup_reader.newer_than(place, manifest)
            else:
                place = stack.enter_context(scratch.server(tools))
            target = stack.enter_context(scratch.database(place, manifest.encoding))
            restored(settings, storage, manifest, target, progress)
    return made[0], attempt.manifest


def restored(settings: Settings, storage: Storage, manifest: Manifest, target: str, progress: Progress) -> None:
    """Restore into the database `target` and compare.

    Raises:
        JobError: It cannot be restored, or differs from its manifest.
        SourceError: The bucket or the server failed.
    """

    def read(done: int) -> None:
        progress(done, manifest.size, "bytes", "restoring")

    def counted(done: int, total: int) -> None:
        progress(done, total, "tables", "comparing")

    dump = backup_reader.content(settings, storage, manifest, read)
    backup_reader.restore(target, pg_tools.choose(manifest.major, settings), dump)
    if differences := backup_reader.compare(target, manifest, counted):
        raise JobError(
            f"restored, but {len(differences)} of {len(manifest.tables)} tables differ: "
            + "; ".join(str(one) for one in differences[:5])
        )


def _proven(
    settings: Settings, storage: Storage, backup: Backup, manifest: Manifest, *, run: int, progress: Progress
) -> None:
    assert settings.ops_dsn is not None  # noqa: S101 - the jobs need it
    last = backups.checks(settings.ops_dsn.get_secret_value()).get((backup.key, Kind.VERIFY))
    if last is None or not last["ok"] or last["sha256"] != manifest.sha256:
        check = verify(
            settings,
            storage,
            backup,
            run=run,
            progress=lambda done: progress(done, backup.stored.size, "bytes", "verifying"),
        )
        if not check.ok:
            raise JobError(check.error)
