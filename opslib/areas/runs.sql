-- name: jobs_declared
-- database: ops
-- Every job not retired: its schedule, what it lacks, when it last succeeded and last ended, the slot decided last.
SELECT j.job, j.title, j.queue, j.schedule, j.timeout_seconds, j.max_age_seconds, j.retries, j.catch_up, j.missing,
       j.first_declared_at, j.declared_at, j.declared_by,
       (SELECT t.last_finished_at FROM ops.job_totals t WHERE t.job = j.job AND t.outcome = 'SUCCESS') AS last_success_at,
       l.outcome AS last_outcome, l.last_finished_at,
       (SELECT max(s.slot) FROM ops.job_slots s WHERE s.job = j.job) AS last_slot
FROM ops.jobs j
LEFT JOIN LATERAL (
    SELECT t.outcome, t.last_finished_at FROM ops.job_totals t WHERE t.job = j.job ORDER BY t.last_finished_at DESC LIMIT 1
) l ON true
WHERE j.retired_at IS NULL
ORDER BY j.job;

-- name: run
-- database: ops
-- One run.
SELECT * FROM ops_view.job_runs WHERE id = %(run)s;

-- name: run_attempts
-- database: ops
-- A run's attempts: where, from when to when, how each ended, and what one said too late.
SELECT a.attempt AS token, a.number, a.node, a.started_at, a.heartbeat_at, a.finished_at, a.outcome, a.lost, a.error,
       a.refused_at, a.refused
FROM ops.job_attempts a
WHERE a.run = %(run)s
ORDER BY a.number;

-- name: runs_active
-- database: ops
-- Runs not ended yet, the oldest first.
SELECT * FROM ops_view.job_runs WHERE outcome IS NULL AND state IN ('QUEUED', 'RUNNING') ORDER BY id;
