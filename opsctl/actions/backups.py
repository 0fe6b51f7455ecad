"""Backups: prove them, drill, and restore one for good."""

from __future__ import annotations

import itertools
import sys
import time
from typing import TYPE_CHECKING

import click

from opsctl.actions import Role, Severity, action
from opsctl.actions.jobs import here
from opslib.areas import backup_reader, backups, pg_tools, restore
from opslib.errors import JobError, RefusedError
from opslib.storage import Storage

if TYPE_CHECKING:
    from opslib.guard import Act  # brings structlog, which a command that only lists does not need

RUNBOOK = "RestoreDatabase"
_TURN = 0.2  # seconds between two looks at the moving line


@click.command()
@click.argument("key", required=False)
@click.option("--all", "every", is_flag=True, help="Every backup there is.")
@action(
    "backups.verify",
    role=Role.STAFF,
    severity=Severity.SAFE,
    event="OPS_BACKUP_VERIFY",
    touches="what is known of backups",
    runbook=RUNBOOK,
)
def verify(act: Act, key: str | None, *, every: bool) -> None:
    """Read a backup (the newest, KEY or all) to its end and compare digest and gzip; exit 1 unless it is whole.

    Runs here, recorded like any run of the job verify-backup; the login needs membership of ops_jobs.
    """
    from jobs.verify_backup import Params  # noqa: PLC0415 - the job, which `--help` need not load

    if key and every:
        raise click.UsageError("give KEY or --all, not both")
    if key:
        backups.one(Storage.of(act.settings), key)  # a name mistyped is no proof that failed
    here(act, "verify-backup", Params(key=key, every=every))


@click.command()
@action(
    "backups.drill",
    role=Role.STAFF,
    severity=Severity.SAFE,
    event="OPS_BACKUP_DRILL",
    touches="what is known of backups",
    runbook=RUNBOOK,
)
def drill(act: Act) -> None:
    """Restore the newest backup into a scratch database, count every table, drop it; exit 1 unless all is there.

    Runs here, recorded like any run of the job restore-drill; the login needs membership of ops_jobs.
    """
    from opslib.spec import NoParams  # noqa: PLC0415 - as above

    here(act, "restore-drill", NoParams())


@click.command("restore")
@click.argument("key")
@click.option("--target", required=True, metavar="NAME", help="The database, on RESTORE_DATABASE_URL's server.")
@click.option("--into-existing", is_flag=True, help="The target may hold something: it is dropped.")
@action(
    "backups.restore",
    role=Role.SUPER,
    severity=Severity.DESTRUCTIVE,
    event="OPS_BACKUP_RESTORE",
    touches="a whole database",
    runbook=RUNBOOK,
)
def restore_(act: Act, key: str, target: str, *, into_existing: bool) -> None:
    """Restore the backup KEY into the database NAME, in one transaction: all of it, or nothing is changed.

    What the backup caught queued or running is cancelled; the restored audit says that it was restored.
    """
    storage = Storage.of(act.settings)
    backup = backups.one(storage, key)
    manifest = backups.manifest(storage, backup)
    admin = act.settings.reveal("RESTORE_DATABASE_URL")
    backup_reader.newer_than(admin, manifest)
    place = restore.look(act.settings, target)
    if place.objects and not into_existing:
        raise RefusedError(f"{target} holds {place.objects} tables and such: choose an empty one, or --into-existing")
    tools = pg_tools.choose(manifest.major, act.settings)
    act.plan(
        target,
        f"restore {key} into {target}",
        f"{manifest.rows} rows in {len(manifest.tables)} tables, as they were at {manifest.started:%Y-%m-%d %H:%M} UTC",
        f"{target} holds {place.objects} tables and such: they are dropped"
        if place.objects
        else f"{target} is empty"
        if place.exists
        else f"{target} is created",
    )
    shown = _Moving()
    with act.go():
        if not place.exists:
            place.create(admin, manifest.encoding)
        dump = backup_reader.content(act.settings, storage, manifest, lambda done: shown.bytes(done, manifest.size))
        before = place.cleared() if place.objects else ()
        backup_reader.restore(place.dsn, tools, itertools.chain(before, dump))
        differences = backup_reader.compare(place.dsn, manifest, shown.tables)
        settled = restore.settle(place.dsn, storage, key, act.reason)
        shown.end()
        if differences:
            raise JobError("restored, but " + "; ".join(str(one) for one in differences[:20]))
    click.echo(f"{len(manifest.tables)} tables, {manifest.rows} rows: as in the manifest")
    click.echo(f"runs cancelled: {settled.runs}")
    if settled.head is not None:
        last = (
            f"event {settled.anchored.seq} of {settled.anchored.at:%Y-%m-%d %H:%M} UTC" if settled.anchored else "none"
        )
        click.echo(f"audit: says `restored` at event {settled.head.seq}; last head noted outside: {last}")
    if settled.findings:
        raise JobError(f"the restored audit: {'; '.join(settled.findings)}")


class _Moving:
    """How far it is, on a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        self._last = 0.0
        self._wide = 0

    def bytes(self, done: int, total: int) -> None:
        """Read so far."""
        self._say(f"restoring: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    def tables(self, done: int, total: int) -> None:
        """Compared so far."""
        self._say(f"comparing: {done} of {total} tables")

    def end(self) -> None:
        """Clear the line."""
        if self._wide:
            click.echo("\r" + " " * self._wide + "\r", err=True, nl=False)

    def _say(self, text: str) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._last > _TURN:
            self._last = now
            self._wide = max(self._wide, len(text))
            click.echo("\r" + text.ljust(self._wide), err=True, nl=False)
