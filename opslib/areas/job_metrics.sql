-- name: job_gauges
-- database: ops
-- Every job not retired, as it stands: when it last succeeded and how it last ended (a run gone silent is FAILED although
-- nobody is there to say so), what is queued and running, what it lacks, and whether its last success, or else its
-- declaration, is further back than it may be; NULL for a job that may be any age, or cannot run.
SELECT j.job, cardinality(j.missing) AS missing,
       extract(epoch FROM s.at)::float8 AS last_success,
       l.outcome AS last_outcome,
       coalesce(o.queued, 0) AS queued, coalesce(o.running, 0) AS running,
       CASE WHEN j.missing = '{}' THEN
           coalesce(s.at, j.first_declared_at) + make_interval(secs => j.max_age_seconds) < statement_timestamp()
       END AS overdue
FROM ops.jobs j
LEFT JOIN LATERAL (
    SELECT count(*) FILTER (WHERE r.state = 'QUEUED') AS queued,
           count(*) FILTER (WHERE r.state = 'RUNNING') AS running,
           max(r.finished) FILTER (WHERE r.state = 'FAILED') AS silent_at
    FROM ops_view.job_runs r WHERE r.outcome IS NULL AND r.job = j.job
) o ON true
LEFT JOIN LATERAL (
    SELECT t.last_finished_at AS at FROM ops.job_totals t WHERE t.job = j.job AND t.outcome = 'SUCCESS'
) s ON true
LEFT JOIN LATERAL (
    SELECT e.outcome FROM (
        SELECT t.outcome, t.last_finished_at AS at FROM ops.job_totals t WHERE t.job = j.job
        UNION ALL SELECT 'FAILED', o.silent_at WHERE o.silent_at IS NOT NULL
    ) e ORDER BY e.at DESC LIMIT 1
) l ON true
WHERE j.retired_at IS NULL
ORDER BY j.job;

-- name: job_totals
-- database: ops
-- Runs that ended, by outcome: how many, their seconds, and how many in each bucket of durations (the last: above all).
SELECT t.job, t.outcome, t.runs, t.seconds, t.buckets FROM ops.job_totals t ORDER BY t.job, t.outcome;

-- name: job_counts
-- database: ops
-- Everything else that is counted about a job, by event.
SELECT c.job, c.event, c.count FROM ops.job_counts c ORDER BY c.job, c.event;
