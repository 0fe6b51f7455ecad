"""The application's own counters: does it keep restarting?"""

from opslib.alerting import MINUTE, Above, Alert, Severity, Signal, Unit

RESTARTS = Signal(
    title="Restarts of the application",
    expr="increase(bitloot_app_restarts_total[30m])",
    unit=Unit.COUNT,
    means="Restarts within half an hour, seen by its counters beginning anew.",
)

SIGNALS = (RESTARTS,)

ALERTS = (
    Alert(
        name="AppRestarting",
        when=Above(RESTARTS, 3),
        because="a deploy restarts it once, a bad one twice; more than three times is a crash loop",
        for_=MINUTE,
        severity=Severity.PAGE,
        summary="the application restarted {{ $value | humanize }} times in half an hour",
    ),
)
