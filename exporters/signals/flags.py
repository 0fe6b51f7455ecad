"""Feature flags: are they as the file says, and does anybody still compare?"""

from opslib.alerting import HOUR, MINUTE, Above, Alert, Below, Severity, Signal, Unit

DRIFT = Signal(
    title="Flags changed by hand",
    expr="ops_flag_drift",
    unit=Unit.YES_NO,
    means="1 if a declared flag was changed past the file and left so. `opsctl flags diff` says who.",
    by=("flag",),
)
STALE = Signal(
    title="Time since the last sync",
    expr="time() - ops_flags_synced_timestamp_seconds",
    unit=Unit.SECONDS,
    means="Seconds since flag-sync last went through; one minute is usual.",
)
VALID = Signal(
    title="Flag file usable",
    expr="ops_flags_file_valid",
    unit=Unit.YES_NO,
    means="1 if the file could be used at the last try. While 0, the flags stay as they are.",
)
EXPIRED = Signal(
    title="Flags past their day",
    expr="time() - ops_flag_expiry_timestamp_seconds",
    unit=Unit.SECONDS,
    means="Seconds since a flag's last day was over; below 0 it has time left.",
    by=("flag",),
)
OVERRIDDEN = Signal(
    title="Overrides past their time",
    expr="time() - ops_flag_override_until_timestamp_seconds",
    unit=Unit.SECONDS,
    means="Seconds since an override should have ended; below 0 it still holds.",
    by=("flag",),
)
STATES = Signal(
    title="Flags by state",
    expr="ops_flags",
    unit=Unit.COUNT,
    means="Flags by how they stood at the last sync.",
    by=("state",),
    no_alert="drift has an alert for each flag; the rest is how it should be",
)

SIGNALS = (DRIFT, STALE, VALID, EXPIRED, OVERRIDDEN, STATES)

ALERTS = (
    Alert(
        name="FlagDrift",
        when=Above(DRIFT, 0),
        because="a hand on the switch is right in an emergency; after half an hour it belongs into the file",
        for_=30 * MINUTE,
        severity=Severity.TICKET,
        summary="the flag {{ $labels.flag }} is not as the file declares it",
    ),
    Alert(
        name="FlagsStale",
        when=Above(STALE, 15 * MINUTE),
        because="compared each minute; a quarter of an hour without is the job's own max_age",
        for_=5 * MINUTE,
        severity=Severity.TICKET,
        summary="flags were last compared {{ $value | humanizeDuration }} ago",
    ),
    Alert(
        name="FlagFileInvalid",
        when=Below(VALID, 1),
        because="a file caught half written is whole a minute later; after five it was committed broken",
        for_=5 * MINUTE,
        severity=Severity.TICKET,
        summary="the flag file cannot be used: flags stay as they are",
    ),
    Alert(
        name="FlagExpired",
        when=Above(EXPIRED, 0),
        because="its owner wrote that day down; an hour for the clocks",
        for_=HOUR,
        severity=Severity.TICKET,
        summary="the flag {{ $labels.flag }} should have been gone {{ $value | humanizeDuration }} ago",
    ),
    Alert(
        name="FlagOverrideExpired",
        when=Above(OVERRIDDEN, 5 * MINUTE),
        because="flag-sync takes an override back within a minute of its end; five minutes later it is not doing so",
        for_=5 * MINUTE,
        severity=Severity.TICKET,
        summary="the override of {{ $labels.flag }} should have ended {{ $value | humanizeDuration }} ago",
    ),
)
