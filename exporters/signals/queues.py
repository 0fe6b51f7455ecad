"""BullMQ queues: is work stuck, is nobody at it, does it fail?

Every expression leaves paused queues out where waiting is what a pause is for, and asks of a queue that nobody ever
worked (the application has one) a ticket, not a page.
"""

from opslib.alerting import HOUR, MINUTE, Above, Alert, Severity, Signal, Unit

WORKED = "on (queue) sum by (queue) (bitloot_queue_jobs_total) > 0"
READY = "(bitloot_queue_waiting + bitloot_queue_prioritized)"

OLDEST = Signal(
    title="Oldest job ready for a worker",
    expr=f"bitloot_queue_oldest_waiting_age_seconds unless on (queue) bitloot_queue_is_paused == 1 unless on (queue) "
    f"({READY} unless {WORKED})",
    unit=Unit.SECONDS,
    means="Seconds the oldest ready job has waited. Age tells more than depth: a deep queue that moves is healthy.",
    by=("queue",),
)
UNATTENDED = Signal(
    title="Jobs ready and no worker",
    expr=f"{READY} and on (queue) bitloot_queue_worker_present == 0 and {WORKED}",
    unit=Unit.COUNT,
    means="Ready jobs of queues whose workers are gone: no worker has shown itself for half a minute.",
    by=("queue",),
)
ABANDONED = Signal(
    title="Jobs in queues nobody ever worked",
    expr=f"{READY} unless {WORKED}",
    unit=Unit.COUNT,
    means="Producers add to a queue that never had a worker: a misspelt name, or a worker never deployed.",
    by=("queue",),
)
OVERDUE = Signal(
    title="Delayed job overdue",
    expr="time() - bitloot_queue_next_delayed_timestamp_seconds unless on (queue) bitloot_queue_is_paused == 1",
    unit=Unit.SECONDS,
    means="Seconds since the next delayed job was due; below 0 it is due in future. Only a living worker moves them.",
    by=("queue",),
)
FAILURES = Signal(
    title="Share of jobs that fail for good",
    expr='sum by (queue) (rate(bitloot_queue_jobs_total{result="failed"}[15m])) '
    "/ sum by (queue) (rate(bitloot_queue_jobs_total[15m])) "
    'and sum by (queue) (increase(bitloot_queue_jobs_total{result="failed"}[15m])) > 2',
    unit=Unit.RATIO,
    means="Jobs whose attempts are used up, of all that ended within 15 minutes; shown from three failures on.",
    by=("queue",),
)
THROUGHPUT = Signal(
    title="Jobs ended",
    expr="sum by (queue, result) (rate(bitloot_queue_jobs_total[5m]))",
    unit=Unit.PER_SECOND,
    means="Jobs per second by result, completed ones that were removed at once included.",
    by=("queue", "result"),
    no_alert="busy and idle are both normal; age and failures call",
)
RETRIES = Signal(
    title="Retries per job that ended",
    expr="sum by (queue) (increase(bitloot_queue_retries_total[15m])) "
    "/ clamp_min(sum by (queue) (increase(bitloot_queue_jobs_total[15m])), 1) "
    "and sum by (queue) (increase(bitloot_queue_retries_total[15m])) > 20",
    unit=Unit.COUNT,
    means="Attempts that were put back in line, for each job that ended; shown from 20 in 15 minutes on.",
    by=("queue",),
)
STALLED = Signal(
    title="Workers lost with a job in hand",
    expr="sum by (queue) (increase(bitloot_queue_stalled_total[15m]))",
    unit=Unit.COUNT,
    means="Times a worker vanished in the middle of a job within 15 minutes: killed, out of memory, or blocked.",
    by=("queue",),
)
PAUSED = Signal(
    title="Paused queues",
    expr="bitloot_queue_is_paused",
    unit=Unit.YES_NO,
    means="1 while somebody has paused the queue. Resume with `opsctl queues resume`.",
    by=("queue",),
)
GAPS = Signal(
    title="Gaps in the event streams",
    expr="sum by (queue) (increase(bitloot_queue_event_gaps_total[1h]))",
    unit=Unit.COUNT,
    means="Times events were trimmed before they were read: counts of that hour are too low, and say so here.",
    by=("queue",),
)
DURATION = Signal(
    title="Job duration, 95th percentile",
    expr="histogram_quantile(0.95, sum by (queue, le) (rate(bitloot_job_duration_seconds_bucket[15m])))",
    unit=Unit.SECONDS,
    means="How long the last attempt of the slowest twentieth took.",
    by=("queue",),
    no_alert="slow is felt as age or as the fulfilment promise broken, which call",
)

SIGNALS = (OLDEST, UNATTENDED, ABANDONED, OVERDUE, FAILURES, THROUGHPUT, RETRIES, STALLED, PAUSED, GAPS, DURATION)

ALERTS = (
    Alert(
        name="QueueNoWorker",
        when=Above(UNATTENDED, 0),
        because="a worker shows itself each half minute; two missed signs and a deploy fit into three minutes",
        for_=3 * MINUTE,
        severity=Severity.PAGE,
        summary="{{ $labels.queue }}: {{ $value }} jobs are ready and no worker is there",
    ),
    Alert(
        name="QueueStuck",
        when=Above(OLDEST, 300),
        because="fulfilment takes seconds and its promise is five minutes: an older job is a customer already waiting",
        for_=2 * MINUTE,
        severity=Severity.PAGE,
        summary="{{ $labels.queue }}: the oldest job has waited {{ $value | humanizeDuration }}",
    ),
    Alert(
        name="QueueDelayedOverdue",
        when=Above(OVERDUE, 120),
        because="a living worker moves a due job within its 5 s poll; two minutes late is no load, it is a dead worker",
        for_=5 * MINUTE,
        severity=Severity.PAGE,
        summary="{{ $labels.queue }}: a delayed job is overdue by {{ $value | humanizeDuration }}",
    ),
    Alert(
        name="QueueFailures",
        when=Above(FAILURES, 0.05),
        because="attempts and back-off absorb hiccups, so a job that fails for good is rare; one in twenty is a defect",
        for_=5 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $labels.queue }}: {{ $value | humanizePercentage }} of the jobs fail for good",
    ),
    Alert(
        name="QueueRetryStorm",
        when=Above(RETRIES, 1),
        because="more retries than finished jobs: the work of the queue is failing and trying again",
        for_=10 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $labels.queue }}: {{ $value | humanize }} retries for each job that ends",
    ),
    Alert(
        name="QueueStalled",
        when=Above(STALLED, 3),
        because="a deploy may lose a job or two; more in a quarter of an hour is a worker that dies again and again",
        for_=MINUTE,
        severity=Severity.TICKET,
        summary="{{ $labels.queue }}: workers vanished {{ $value | humanize }} times in 15 minutes",
    ),
    Alert(
        name="QueuePaused",
        when=Above(PAUSED, 0),
        because="a pause for a deploy lasts minutes; after half an hour it was forgotten",
        for_=30 * MINUTE,
        severity=Severity.TICKET,
        summary="{{ $labels.queue }} has been paused for half an hour",
    ),
    Alert(
        name="QueueAbandoned",
        when=Above(ABANDONED, 0),
        because="jobs nobody will ever do; nothing of a customer's waits for them at night",
        for_=HOUR,
        severity=Severity.TICKET,
        summary="{{ $labels.queue }}: {{ $value }} jobs in a queue that never had a worker",
    ),
    Alert(
        name="QueueEventsLost",
        when=Above(GAPS, 0),
        because="any gap makes counters too low for good: find out why the exporter was away that long",
        for_=0,
        severity=Severity.TICKET,
        summary="{{ $labels.queue }}: events were gone before they were counted",
    ),
)
