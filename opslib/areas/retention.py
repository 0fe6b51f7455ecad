"""Which backups no rule keeps: decided without touching anything.

Invariant: the newest proven backup survives whatever the clock, the listing or the policy says, and so does the newest.

Rules count days, weeks and months *that have a backup*, not those of the calendar: when backups stop, none grows old.
So no rule needs to know what day it is, and a clock that is wrong deletes nothing. Sources: the keep rules are those of
restic's `forget`; the stories of what went wrong elsewhere stand in the issue trackers of all backup tools.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from opslib.errors import JobError
from opslib.storage import PendingUpload

YOUNG = timedelta(days=2)
"""A backup younger than this is kept in any case: its proof may be under way, or its successor's."""


class IncompleteError(JobError):
    """What is there is not known in full, so nothing may be decided by what is absent."""


class TooMuchError(JobError):
    """More would go than one run may remove."""


class NothingProvenError(JobError):
    """Backups would go while none of those that stay is proven."""


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup of ours in the bucket.

    Attributes:
        key: Its object.
        taken_at: When, by its own account, UTC.
        modified: When, by the store's clock, UTC.
        bytes: The object's size.
        verified: It was read again and found whole.
        manifest: Its manifest's key; None if it has none.
    """

    key: str
    taken_at: datetime
    modified: datetime
    bytes: int
    verified: bool
    manifest: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What is kept.

    Attributes:
        daily: The newest of each of so many days that have one.
        weekly: The newest of each of so many weeks that have one.
        monthly: The newest of each of so many months that have one.
        max_share: Of all backups one run removes at most this share, from 0 to 1.
        stale: An unfinished upload older than this was abandoned.
    """

    daily: int = 30
    weekly: int = 8
    monthly: int = 12
    max_share: float = 0.5
    stale: timedelta = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Listing:
    """What is in the bucket; objects whose name is not one of ours are not in here, so nothing ever happens to them.

    Attributes:
        backups: Each object, with what its manifest says.
        orphans: Manifests whose object is not there: each claims a backup that does not exist.
        uploads: Unfinished multipart uploads to names of ours.
        expected: Keys that must be there, by our own records.
        running_since: When the oldest backup now running began; None if none runs.
    """

    backups: tuple[Backup, ...]
    orphans: tuple[str, ...] = ()
    uploads: tuple[PendingUpload, ...] = ()
    expected: frozenset[str] = frozenset()
    running_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does, in this order.

    Attributes:
        keep: Every backup that stays with the rules that say so, the newest first.
        remove: Backups to delete, the oldest first.
        orphans: Manifests to delete.
        abort: Uploads to abort.
        anchor: The newest proven backup: it must still be there when the deleting begins. None: nothing is removed.
    """

    keep: dict[str, tuple[str, ...]] = field(default_factory=dict)
    remove: tuple[Backup, ...] = ()
    orphans: tuple[str, ...] = ()
    abort: tuple[PendingUpload, ...] = ()
    anchor: Backup | None = None

    def lines(self) -> Iterator[str]:
        """Each step in words, the same for a dry run and a run."""
        for orphan in self.orphans:
            yield f"delete {orphan}: its backup is not there"
        for backup in self.remove:
            yield f"delete {backup.key}: no rule keeps it"
        for upload in self.abort:
            yield f"abort the upload of {upload.key}, begun {upload.initiated:%Y-%m-%d %H:%M} UTC"


def plan(listing: Listing, policy: Policy, now: datetime) -> Plan:
    """Decide, without touching anything.

    Raises:
        IncompleteError: A backup our records know is not listed.
        NothingProvenError: Something would go and nothing is proven.
        TooMuchError: More would go than the policy's share.
    """
    if missing := sorted(listing.expected - {backup.key for backup in listing.backups}):
        raise IncompleteError(
            f"{missing[-1]} should be in the bucket and is not listed (nor are {len(missing) - 1} others): nothing was "
            "removed; look at the bucket, then run `opsctl backups list`"
        )
    kept = _kept(listing.backups, policy, now)
    remove = tuple(sorted((b for b in listing.backups if b.key not in kept), key=_age))
    proven = [backup for backup in listing.backups if backup.verified]
    if remove and not proven:
        raise NothingProvenError(
            f"{len(remove)} backups are due and none is proven: nothing was removed; run `opsctl backups verify --all`"
        )
    if len(remove) > policy.max_share * len(listing.backups):
        raise TooMuchError(
            f"{len(remove)} of {len(listing.backups)} backups would go, more than {policy.max_share:.0%}: nothing was "
            "removed; look at it with dry_run, then run this once with a larger max_share"
        )
    return Plan(
        keep={b.key: kept[b.key] for b in sorted(listing.backups, key=_age, reverse=True) if b.key in kept},
        remove=remove,
        orphans=tuple(sorted(listing.orphans)),
        abort=tuple(upload for upload in listing.uploads if _abandoned(upload, listing, policy, now)),
        anchor=max(proven, key=_age) if remove else None,
    )


def _kept(backups: Iterable[Backup], policy: Policy, now: datetime) -> dict[str, tuple[str, ...]]:
    kept: dict[str, list[str]] = {}

    def keep(reason: str, found: Iterable[Backup]) -> None:
        for backup in found:
            kept.setdefault(backup.key, []).append(reason)

    everything = sorted(backups, key=_age, reverse=True)
    proven = [backup for backup in everything if backup.verified]
    # By the store's clock, too: one backup dated ahead must not make all that follow look old.
    for which, of in (("newest", everything), ("newest proven", proven)):
        keep(which, {b.key: b for b in (*of[:1], *sorted(of, key=_written, reverse=True)[:1])}.values())
    keep("young", (b for b in everything if max(b.taken_at, b.modified) > now - YOUNG))
    # What is not proven may be worthless: it takes no proven one's place.
    keep("daily", _newest_of(everything, _day, policy.daily))
    keep("proven daily", _newest_of(proven, _day, policy.daily))
    keep("weekly", _newest_of(proven, _week, policy.weekly))
    keep("monthly", _newest_of(proven, _month, policy.monthly))
    return {key: tuple(reasons) for key, reasons in kept.items()}


def _newest_of(newest_first: Iterable[Backup], period: Callable[[Backup], object], count: int) -> Iterator[Backup]:
    """The newest backup of each of the last `count` periods that have one."""
    seen: set[object] = set()
    for backup in newest_first:
        if period(backup) not in seen:
            if len(seen) == count:
                return
            seen.add(period(backup))
            yield backup


def _day(backup: Backup) -> object:
    return backup.taken_at.date()


def _week(backup: Backup) -> object:
    return backup.taken_at.isocalendar()[:2]


def _month(backup: Backup) -> object:
    return backup.taken_at.year, backup.taken_at.month


def _age(backup: Backup) -> tuple[datetime, str]:
    return backup.taken_at, backup.key


def _written(backup: Backup) -> tuple[datetime, str]:
    return backup.modified, backup.key


def _abandoned(upload: PendingUpload, listing: Listing, policy: Policy, now: datetime) -> bool:
    if listing.running_since is not None and upload.initiated >= listing.running_since - timedelta(minutes=5):
        return False  # five minutes: the store's clock is not ours
    return upload.initiated < now - policy.stale
