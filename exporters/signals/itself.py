"""The exporters themselves: does each source answer, and is anybody watching at all?"""

from opslib.alerting import MINUTE, Above, Absent, Alert, Always, Below, Severity, Signal, Unit
from opslib.collector import SELF_METRICS
from opslib.server import PAGE_METRICS
from opslib.spec import Subject

PAGE = Signal(
    title="Exporter pages",
    expr='up{job="bitloot-ops"}',
    unit=Unit.YES_NO,
    means="1 if Prometheus could read the exporter's page.",
    by=("instance",),
)
BUILD = Signal(
    title="Builds",
    expr="ops_build_info",
    unit=Unit.COUNT,
    means="Which build each exporter is; two versions for long mean a deploy that stopped half way.",
    by=("instance", "version", "commit"),
)
SOURCE = Signal(
    title="Sources answering",
    # A provider that does not answer is ProviderDown: one call for one fault.
    expr='ops_collector_up{collector!~"providers/(kinguin|nowpayments)"}',
    unit=Unit.YES_NO,
    means="1 if the collector's source answered. While 0, its gauges are absent: no data is not zero.",
    by=("instance", "collector"),
)
STALE = Signal(
    title="Time since a collector last succeeded",
    expr="time() - ops_collector_last_success_timestamp_seconds",
    unit=Unit.SECONDS,
    means="Seconds since the collector last read its source in full.",
    by=("instance", "collector"),
    no_alert="a source that is down or hung is ops_collector_up 0, which calls",
)
DURATION = Signal(
    title="Time a collection takes",
    expr="ops_collector_duration_seconds",
    unit=Unit.SECONDS,
    means="How long the last collection took.",
    by=("instance", "collector"),
    no_alert="too slow is past its deadline, and then its source counts as down",
)
LAG = Signal(
    title="Counts not saved yet",
    expr="ops_checkpoint_lag_seconds",
    unit=Unit.SECONDS,
    means="Age of the oldest count not yet in the store. While it grows, counters stand still; nothing is lost.",
    by=("instance", "exporter"),
)
DROPPED = Signal(
    title="Series left out",
    expr="increase(ops_dropped_series_total[1h])",
    unit=Unit.COUNT,
    means="Series left out of the page within an hour: duplicates, or beyond a collector's cap.",
    by=("instance",),
)

SIGNALS = (PAGE, BUILD, SOURCE, STALE, DURATION, LAG, DROPPED)

ALERTS = (
    Alert(
        name="Watchdog",
        when=Always(),
        because="its silence at the receiver means that Prometheus, Alertmanager or the way between them is broken",
        for_=0,
        severity=Severity.HEARTBEAT,
        summary="alerting works",
        keep_firing_for=0,
    ),
    Alert(
        name="ExporterDown",
        when=Below(PAGE, 1),
        because="a restart takes seconds and a scrape comes every ten; two minutes are twelve failures",
        for_=2 * MINUTE,
        severity=Severity.PAGE,
        summary="the exporter at {{ $labels.instance }} does not answer: nothing it watches is watched",
    ),
    Alert(
        name="ExporterAbsent",
        when=Absent(BUILD),
        because="no exporter at all: not scraped, or never started",
        for_=5 * MINUTE,
        severity=Severity.PAGE,
        summary="no exporter publishes anything",
    ),
    Alert(
        name="ExporterSourceDown",
        when=Below(SOURCE, 1),
        because="a server's restart takes less than a minute, a fail-over less than two",
        for_=3 * MINUTE,
        severity=Severity.PAGE,
        summary="the source of {{ $labels.collector }} does not answer",
    ),
    Alert(
        name="CheckpointBehind",
        when=Above(LAG, 120),
        because="saved every second; two minutes behind is a store that is away, and counters that stand still",
        for_=3 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $labels.exporter }}: counts have not been saved for {{ $value | humanizeDuration }}",
    ),
    Alert(
        name="SeriesDropped",
        when=Above(DROPPED, 0),
        because="any series left out is a number nobody sees: a queue or job name made up per job, mostly",
        for_=15 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $value | humanize }} series were left out of the page within an hour",
    ),
)

SUBJECT = Subject(
    name="exporters",
    title="The exporters themselves",
    needs=(),
    metrics=(*SELF_METRICS, *PAGE_METRICS),
    collectors="",  # on every exporter's page
    signals=SIGNALS,
    alerts=ALERTS,
)
