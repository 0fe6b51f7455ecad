"""Backups: fresh? whole? proven? What nobody checks is what everybody misses on the day."""

from opslib.alerting import HOUR, MINUTE, Above, Alert, Below, Severity, Signal, Unit

# What must last for hours before somebody is called is read over a quarter of one: a single scrape missed, as at each
# deployment, would begin those hours anew.
AGE = Signal(
    title="Age of the newest backup",
    expr="time() - bitloot_backup_newest_timestamp_seconds",
    unit=Unit.SECONDS,
    means="Seconds since the newest whole backup was written, as the bucket itself says.",
)
COUNT = Signal(
    title="Whole backups",
    expr='last_over_time(bitloot_backups{manifest="yes"}[15m])',
    unit=Unit.COUNT,
    means="Backups in the bucket whose manifest is there, which is written last.",
)
PARTIAL = Signal(
    title="Backups without a manifest",
    expr='bitloot_backups{manifest="missing"}',
    unit=Unit.COUNT,
    means="Dumps in the bucket without a manifest: cut off between the two writes, and never counted as backups.",
    no_alert="they count for nothing: if a whole one is lacking, its age calls",
)
BYTES = Signal(
    title="Size of the newest backup",
    expr="bitloot_backup_newest_bytes",
    unit=Unit.BYTES,
    means="Bytes of the newest whole backup, compressed.",
    no_alert="how much is right nobody knows; the ratio to the one before calls",
)
SHRINK = Signal(
    title="Size against the one before",
    expr="bitloot_backup_size_ratio",
    unit=Unit.RATIO,
    means="Size of the newest backup over that of the one before.",
)
PENDING = Signal(
    title="Unfinished uploads",
    expr="last_over_time(bitloot_backup_pending_uploads[15m])",
    unit=Unit.COUNT,
    means="Multipart uploads begun and neither completed nor aborted: invisible in the bucket, and paid for.",
)
PASSED = Signal(
    title="Last proof passed",
    expr="bitloot_backup_proven",
    unit=Unit.YES_NO,
    means="1 if the last check passed: verify reads the backup to its end, drill restores it and looks inside.",
    by=("check",),
)
NEWEST_PROVEN = Signal(
    title="Newest backup proven",
    expr="last_over_time(bitloot_backup_newest_proven[15m])",
    unit=Unit.YES_NO,
    means="1 if the newest whole backup was read to its end and agreed with its digest; 0 until it is verified.",
)
VERIFIED = Signal(
    title="Time since a backup was verified",
    expr='time() - bitloot_backup_proven_timestamp_seconds{check="verify"}',
    unit=Unit.SECONDS,
    means="Seconds since a backup was last read to its end and agreed with its digest.",
    by=("check",),
    no_alert="of which backup it does not say; whether the newest one is proven calls",
)
DRILLED = Signal(
    title="Time since a backup was restored",
    expr='time() - bitloot_backup_proven_timestamp_seconds{check="drill"}',
    unit=Unit.SECONDS,
    means="Seconds since a backup was last restored into a scratch database and looked through.",
    by=("check",),
)
SECONDS = Signal(
    title="Time a proof takes",
    expr="bitloot_backup_check_seconds",
    unit=Unit.SECONDS,
    means="How long the last check took; a drill's is how long a real restore would take.",
    by=("check",),
    no_alert="it grows with the shop; read it before promising a recovery time",
)

SIGNALS = (AGE, COUNT, PARTIAL, BYTES, SHRINK, PENDING, PASSED, NEWEST_PROVEN, VERIFIED, DRILLED, SECONDS)

ALERTS = (
    Alert(
        name="BackupStale",
        when=Above(AGE, 26 * HOUR),
        because="written each night; two hours late is no slow night any more",
        for_=10 * MINUTE,
        severity=Severity.TICKET,
        summary="the newest backup is {{ $value | humanizeDuration }} old",
    ),
    Alert(
        name="BackupsMissed",
        when=Above(AGE, 50 * HOUR),
        because="two nights in a row: what BackupStale said was not heard, and a lost disk now costs two days",
        for_=10 * MINUTE,
        severity=Severity.PAGE,
        summary="the newest backup is {{ $value | humanizeDuration }} old: two nights were missed",
    ),
    Alert(
        name="BackupNone",
        when=Below(COUNT, 1),
        because="a first deployment has none until its first night; whoever deletes them all must not wait for that",
        for_=26 * HOUR,
        severity=Severity.PAGE,
        summary="the bucket holds no whole backup",
    ),
    Alert(
        name="BackupShrunk",
        when=Below(SHRINK, 0.8),
        because="a shop's data grows; a fifth less than yesterday is a table gone, or a dump that stopped half way",
        for_=10 * MINUTE,
        severity=Severity.TICKET,
        summary="the newest backup has {{ $value | humanizePercentage }} of the size of the one before",
    ),
    Alert(
        name="BackupCheckFailed",
        when=Below(PASSED, 1),
        because="one failed proof means that today there may be no way back",
        for_=10 * MINUTE,
        severity=Severity.PAGE,
        summary="the last {{ $labels.check }} of a backup failed",
    ),
    Alert(
        name="BackupUnproven",
        when=Below(NEWEST_PROVEN, 1),
        because="verified two hours after it was written, in six at most; whoever comes to work should know",
        for_=10 * HOUR,
        severity=Severity.TICKET,
        summary="the newest backup was not verified",
    ),
    Alert(
        name="BackupUndrilled",
        when=Above(DRILLED, 4 * 24 * HOUR),
        because="drilled each night; after four without, nobody knows whether a restore would work",
        for_=10 * MINUTE,
        severity=Severity.TICKET,
        summary="no backup was restored for {{ $value | humanizeDuration }}",
    ),
    Alert(
        name="BackupUploadsLeft",
        when=Above(PENDING, 2),
        because="a night's upload takes minutes and aborts itself when it fails; three left for hours are forgotten",
        for_=6 * HOUR,
        severity=Severity.TICKET,
        summary="{{ $value }} uploads of backups were begun and never ended",
    ),
)
