"""Is there a backup, is it new, is it as large as the one before, and was it proven?

Invariant: a backup younger than a day and a bit, proven by its digest, and restored in a drill within two days.
Source: the bucket itself, listed every few minutes, for what exists; `ops.backup_checks` for what was proven. What the
bucket does not list is not there, whatever our records say.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from exporters.signals import backups as signals
from opslib.areas import backups
from opslib.areas.backups import Backup, Kind
from opslib.areas.queries import NAMED
from opslib.collector import Collector, Every
from opslib.database_collector import DatabaseCollector
from opslib.errors import StorageError
from opslib.postgres import Database
from opslib.settings import Settings
from opslib.spec import Gauge, Sample, Subject
from opslib.storage import Storage

COUNT = Gauge("bitloot_backups", "Backups in the bucket, by whether they have a manifest.", ("manifest",))
NEWEST = Gauge("bitloot_backup_newest_timestamp_seconds", "When the newest whole backup was written, Unix time.")
BYTES = Gauge("bitloot_backup_newest_bytes", "Size of that backup.")
SIZE_RATIO = Gauge(
    "bitloot_backup_size_ratio", "Its size over that of the one before; below 1 it shrank. Absent while there is one."
)
PENDING = Gauge("bitloot_backup_pending_uploads", "Multipart uploads of backups begun and not ended.")
PROVEN = Gauge(
    "bitloot_backup_proven",
    "1 if the last check of this kind was passed, 0 if not: verify reads a backup to its end, drill restores it.",
    ("check",),
)
PROVEN_AT = Gauge(
    "bitloot_backup_proven_timestamp_seconds", "When a check of this kind was last passed, Unix time.", ("check",)
)
NEWEST_PROVEN = Gauge(
    "bitloot_backup_newest_proven",
    "1 if the newest whole backup in the bucket was read to its end as it is now and agreed with its digest, else 0.",
)
SECONDS = Gauge("bitloot_backup_check_seconds", "How long the last check of this kind took.", ("check",))

LIST_SECONDS = 300.0
"""A listing is paid for; a backup comes once a day."""
CHECKS_SECONDS = 15.0
"""A small table of ours: whoever verifies a backup sees it on the board at the next scrape."""
FIRST_SECONDS = 10.0
"""How long the checks wait for the first listing, so that they can say at once whether the newest backup is proven."""


class Objects(Collector):
    """What the bucket holds.

    Args:
        storage: The bucket.

    Attributes:
        newest: The newest whole backup; None: there is none, or nobody knows.
        looked: Set once it was listed, or could not be.
    """

    name = "backups/objects"
    refresh = Every(LIST_SECONDS, deadline=60, retry=15)

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.newest: Backup | None = None
        self.looked = asyncio.Event()

    async def collect(self) -> Sequence[Sample]:
        """List it."""
        try:
            found, pending = await asyncio.to_thread(self._look)
        except StorageError:
            self.newest = None
            self.looked.set()
            raise
        whole = [backup for backup in found if backup.has_manifest]
        self.newest = whole[-1] if whole else None
        self.looked.set()
        samples = [
            COUNT(len(whole), manifest="yes"),
            COUNT(len(found) - len(whole), manifest="missing"),
            PENDING(pending),
        ]
        if whole:
            samples += [NEWEST(whole[-1].written.timestamp()), BYTES(whole[-1].stored.size)]
        if len(whole) > 1 and whole[-2].stored.size:
            samples.append(SIZE_RATIO(whole[-1].stored.size / whole[-2].stored.size))
        return samples

    def _look(self) -> tuple[Sequence[backups.Backup], int]:
        return backups.listing(self._storage), len(self._storage.pending(backups.PREFIX))


class Checks(DatabaseCollector):
    """What was proven.

    Args:
        ops: The database of schema `ops`.
        objects: What there is to prove.
    """

    name = "backups/checks"

    def __init__(self, ops: Database, objects: Objects) -> None:
        super().__init__(ops, CHECKS_SECONDS)
        self._objects = objects

    async def collect(self) -> Sequence[Sample]:
        """Read the last check of each."""
        rows = await self._database.rows(NAMED["backup_checks_last"].sql)
        with contextlib.suppress(TimeoutError):  # a bucket that hangs hides nothing of what was proven
            async with asyncio.timeout(FIRST_SECONDS):
                await self._objects.looked.wait()
        samples = []
        for kind in Kind:
            of_kind = [row for row in rows if row["kind"] == kind]
            if of_kind:
                last = max(of_kind, key=lambda row: row["checked_at"])
                samples += [PROVEN(last["ok"], check=kind), SECONDS(last["seconds"], check=kind)]
            if good := [row["checked_at"].timestamp() for row in of_kind if row["ok"]]:
                samples.append(PROVEN_AT(max(good), check=kind))
        if newest := self._objects.newest:
            samples.append(NEWEST_PROVEN(any(_proves(row, newest) for row in rows)))
        return samples


def _proves(row: Mapping[str, Any], backup: Backup) -> bool:
    """Does this check hold for the object as it lies there now? An older one was of another."""
    return bool(
        row["key"] == backup.key
        and row["kind"] == Kind.VERIFY
        and row["ok"]
        and row["bytes"] == backup.stored.size
        and row["checked_at"] >= backup.written
    )


def collectors(settings: Settings) -> list[Collector]:
    """One for the bucket, one for our records."""
    ops = Database(settings.require_ops(), application_name="opsctl backups", read_only=True)
    objects = Objects(Storage.of(settings))
    return [objects, Checks(ops, objects)]


SUBJECT = Subject(
    name="backups",
    title="Backups: age, size, proofs",
    needs=("DATABASE_URL", "R2_ENDPOINT", "R2_BUCKET", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"),
    metrics=(COUNT, NEWEST, BYTES, SIZE_RATIO, PENDING, PROVEN, PROVEN_AT, NEWEST_PROVEN, SECONDS),
    collectors="exporters.backups:collectors",
    signals=signals.SIGNALS,
    alerts=signals.ALERTS,
)
