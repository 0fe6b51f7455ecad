"""Jobs: one rule for all of them, and what the engine itself has to say."""

from opslib.alerting import HOUR, MINUTE, Above, Alert, Severity, Signal, Unit

OVERDUE = Signal(
    title="Jobs overdue",
    expr="ops_job_overdue",
    unit=Unit.YES_NO,
    means="1 if the job has not succeeded within its max_age; a job that never ran counts from its declaration.",
    by=("job_name",),
)
REPLICATION = Signal(
    title="Replication behind",
    expr='time() - ops_job_last_success_timestamp_seconds{job_name="replicate-objects"}',
    unit=Unit.SECONDS,
    means="Seconds since the customers' keys were last copied to the second bucket.",
    by=("job_name",),
)
FAILING = Signal(
    title="Jobs whose last run failed",
    expr='ops_job_last_outcome{outcome="FAILED"}',
    unit=Unit.YES_NO,
    means="1 if the last run failed, all its attempts used up. `opsctl jobs show` has its error.",
    by=("job_name",),
)
SILENT = Signal(
    title="Job exporter without jobs",
    expr='ops_collector_up{collector="runs"} unless on (instance) ops_job_running',
    unit=Unit.YES_NO,
    means="1 if the exporter reads ops.jobs and finds nothing: no `opsctl jobs run` has ever declared a job there.",
    by=("instance",),
)
LOST = Signal(
    title="Attempts lost",
    expr="increase(ops_job_attempts_lost_total[1h])",
    unit=Unit.COUNT,
    means="Attempts within an hour whose process died or fell silent; another worker took them over.",
    by=("job_name",),
)
TIMEOUTS = Signal(
    title="Attempts killed at their time",
    expr="increase(ops_job_attempt_timeouts_total[6h])",
    unit=Unit.COUNT,
    means="Attempts within six hours that were killed because their time was up.",
    by=("job_name",),
)
TICKS = Signal(
    title="Scheduler ticks that went wrong",
    expr="sum by (job_name) (increase(ops_job_scheduler_events_total[1h]))",
    unit=Unit.COUNT,
    means="Ticks missed, failed or crowded out within an hour. Their slots are caught up, late.",
    by=("job_name",),
)
QUEUED = Signal(
    title="Runs waiting",
    expr="ops_job_queued",
    unit=Unit.COUNT,
    means="Runs waiting for a worker, for their time, or for their next attempt.",
    by=("job_name",),
    no_alert="runs may be queued for next year; what waits too long becomes overdue, which calls",
)
RUNNING = Signal(
    title="Runs being worked on",
    expr="ops_job_running",
    unit=Unit.COUNT,
    means="Runs being worked on.",
    by=("job_name",),
    no_alert="busy is normal; a run that takes too long is killed at its time, which calls",
)
DURATION = Signal(
    title="Run duration, 95th percentile",
    expr="histogram_quantile(0.95, sum by (job_name, le) (rate(ops_job_duration_seconds_bucket[1d])))",
    unit=Unit.SECONDS,
    means="How long the slowest twentieth of a day's runs took, all attempts included.",
    by=("job_name",),
    no_alert="each job has a timeout, which calls",
)
UNFIT = Signal(
    title="Settings missing",
    expr="ops_job_missing_settings",
    unit=Unit.COUNT,
    means="Settings a job cannot do without and does not have: it is not scheduled.",
    by=("job_name",),
    no_alert="leaving a job's settings out is how one switches it off; a bucket without backups has its own alert",
)
SKIPPED = Signal(
    title="Slots left out or too late",
    expr="sum by (job_name) (increase(ops_job_slots_skipped_total[1d]) + increase(ops_job_slots_late_total[1d]))",
    unit=Unit.COUNT,
    means="Times of a day when the job was due and left out, as its catch-up says, or came up after a later one.",
    by=("job_name",),
    no_alert="expected after any outage of the schedulers; the job's age calls if nothing made up for it",
)
REFUSED = Signal(
    title="Results refused",
    expr="increase(ops_job_results_refused_total[1d])",
    unit=Unit.COUNT,
    means="Results of attempts that had been given up for lost: the engine kept a zombie from being believed.",
    by=("job_name",),
    no_alert="the refusal is the remedy; the attempt counts as lost, which calls",
)

SIGNALS = (
    *(OVERDUE, REPLICATION, FAILING, SILENT, LOST, TIMEOUTS, TICKS),
    *(QUEUED, RUNNING, DURATION, UNFIT, SKIPPED, REFUSED),
)

ALERTS = (
    Alert(
        name="JobOverdue",
        when=Above(OVERDUE, 0),
        because="each job declares how old its last success may be, so one rule fits all of them",
        for_=5 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $labels.job_name }} has not succeeded for longer than it may",
    ),
    Alert(
        name="ReplicationBehind",
        when=Above(REPLICATION, 6 * HOUR),
        because="due each hour; after six, a quarter of a day's keys exist once only, in the bucket we insure against",
        for_=5 * MINUTE,
        severity=Severity.PAGE,
        summary="customers' keys were last copied {{ $value | humanizeDuration }} ago",
    ),
    Alert(
        name="JobFailing",
        when=Above(FAILING, 0),
        because="a run has retries of its own; a quarter of an hour lets a job of each minute heal itself",
        for_=15 * MINUTE,
        severity=Severity.TICKET,
        summary="the last run of {{ $labels.job_name }} failed",
    ),
    Alert(
        name="JobsUndeclared",
        when=Above(SILENT, 0),
        because="a worker declares every job when it starts; a first deployment may take a quarter of an hour",
        for_=15 * MINUTE,
        severity=Severity.TICKET,
        summary="no job is declared: `opsctl jobs run` was never started here",
    ),
    Alert(
        name="JobAttemptsLost",
        when=Above(LOST, 2),
        because="a deployment may kill one or two; more within an hour is a worker that dies again and again",
        for_=MINUTE,
        severity=Severity.TICKET,
        summary="{{ $labels.job_name }}: {{ $value | humanize }} attempts vanished within an hour",
    ),
    Alert(
        name="JobTimeouts",
        when=Above(TIMEOUTS, 0),
        because="timeouts are several times what a run takes: one reached is a hang, or data that outgrew the job",
        for_=MINUTE,
        severity=Severity.TICKET,
        summary="{{ $labels.job_name }} was killed because its time was up",
    ),
    Alert(
        name="SchedulerUnwell",
        when=Above(TICKS, 5),
        because="a restart costs a tick or two; more than five within an hour is a clock or a database in need",
        for_=5 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $labels.job_name }}: {{ $value | humanize }} ticks of the scheduler went wrong within an hour",
    ),
)
