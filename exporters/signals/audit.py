"""The audit: is what we remember whole, proven, and noted where nobody here can rewrite it?"""

from opslib.alerting import HOUR, MINUTE, Above, Alert, Below, Severity, Signal, Unit

INTACT = Signal(
    title="Chain intact",
    expr="ops_audit_intact",
    unit=Unit.YES_NO,
    means="1 if the last verification found nothing. `opsctl audit verify` names the events that do not fit.",
)
GROWTH = Signal(
    title="Growth of the chain within an hour",
    expr="ops_audit_chain_events - (ops_audit_chain_events offset 1h)",
    unit=Unit.COUNT,
    means="Events added within an hour. A chain never becomes shorter by itself.",
)
VERIFIED = Signal(
    title="Time since the chain was proved",
    expr='time() - ops_audit_verified_timestamp_seconds{outcome="intact"}',
    unit=Unit.SECONDS,
    means="Seconds since a verification last found the whole chain intact.",
    by=("outcome",),
)
ANCHORED = Signal(
    title="Time since the head was noted outside",
    expr="time() - ops_audit_anchored_timestamp_seconds",
    unit=Unit.SECONDS,
    means="Seconds since the head was last written where a superuser of the database cannot reach it.",
)
UNFINISHED = Signal(
    title="Actions without an outcome",
    expr="ops_audit_unfinished_intents",
    unit=Unit.COUNT,
    means="Actions begun more than an hour ago whose outcome was never written: somebody was cut off in the middle.",
)
OLDEST = Signal(
    title="Oldest action without an outcome",
    expr="ops_audit_oldest_unfinished_age_seconds",
    unit=Unit.SECONDS,
    means="How long the oldest of them has been open.",
    no_alert="one open action calls, however old",
)
EVENTS = Signal(
    title="Actions by outcome",
    expr="sum by (outcome) (increase(ops_audit_events_total[1h]))",
    unit=Unit.COUNT,
    means="Audit events within an hour by outcome.",
    by=("outcome",),
    no_alert="people at work; refusals have an alert of their own",
)
REFUSED = Signal(
    title="Actions refused",
    expr='sum(increase(ops_audit_events_total{outcome="refused"}[1h]))',
    unit=Unit.COUNT,
    means="Actions the guard refused within an hour: no role, no reason, no confirmation.",
)

SIGNALS = (INTACT, GROWTH, VERIFIED, ANCHORED, UNFINISHED, OLDEST, EVENTS, REFUSED)

ALERTS = (
    Alert(
        name="AuditDamaged",
        when=Below(INTACT, 1),
        because="an event was changed, removed or reordered by somebody who may write to the table",
        for_=0,
        severity=Severity.PAGE,
        summary="the audit's chain does not verify",
    ),
    Alert(
        name="AuditShrunk",
        when=Below(GROWTH, 0),
        because="nothing removes events; seen within a minute, where the nightly proof would take a day",
        for_=MINUTE,
        severity=Severity.PAGE,
        summary="the audit's chain lost events within the last hour",
    ),
    Alert(
        name="AuditUnverified",
        when=Above(VERIFIED, 50 * HOUR),
        because="proved each night; JobOverdue speaks after one, this after two, whatever the jobs say of themselves",
        for_=10 * MINUTE,
        severity=Severity.TICKET,
        summary="the audit's chain was last proved intact {{ $value | humanizeDuration }} ago",
    ),
    Alert(
        name="AuditUnanchored",
        when=Above(ANCHORED, 50 * HOUR),
        because="noted each night; what is not noted outside can be rewritten from the beginning",
        for_=10 * MINUTE,
        severity=Severity.TICKET,
        summary="the audit's head was last noted outside {{ $value | humanizeDuration }} ago",
    ),
    Alert(
        name="AuditUnfinished",
        when=Above(UNFINISHED, 0),
        because="it counts what is open for an hour already: somebody must look how far the action came",
        for_=5 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $value }} actions were begun and have no outcome",
    ),
    Alert(
        name="AuditRefusals",
        when=Above(REFUSED, 20),
        because="a forgotten reason is refused a few times an hour; more than twenty is a script, or somebody trying",
        for_=5 * MINUTE,
        severity=Severity.TICKET,
        summary="the guard refused {{ $value | humanize }} actions within an hour",
    ),
)
