-- name: orders_by_hour
-- database: app
-- Orders created in each hour of a span, and their value in EUR.
WITH RECURSIVE statuses AS (
    (SELECT status FROM ops_view.orders ORDER BY status LIMIT 1)
    UNION ALL
    SELECT (SELECT o.status FROM ops_view.orders o WHERE o.status > s.status ORDER BY o.status LIMIT 1)
    FROM statuses s WHERE s.status IS NOT NULL
)
SELECT date_trunc('hour', o.created_at_utc) AT TIME ZONE 'UTC' AS hour, count(*) AS orders, sum(o.total_eur) AS total_eur
FROM statuses s
CROSS JOIN LATERAL (
    SELECT n.created_at_utc, n.total_eur FROM ops_view.orders n
    WHERE n.status = s.status
      AND n.created_at_utc >= %(since)s::timestamptz AT TIME ZONE 'UTC'
      AND n.created_at_utc < %(until)s::timestamptz AT TIME ZONE 'UTC'
) o
GROUP BY 1 ORDER BY 1;

-- name: slots_between
-- database: ops
-- Slots of a span by job, half hour, and what became of them; a run no longer remembered is ARCHIVED.
SELECT j.job, date_bin('30 minutes', s.slot, %(since)s::timestamptz) AS bin,
       CASE WHEN s.run IS NULL THEN 'SKIPPED' ELSE coalesce(r.state, 'ARCHIVED') END AS state, count(*) AS slots
FROM ops.jobs j
JOIN ops.job_slots s ON s.job = j.job AND s.slot >= %(since)s AND s.slot < %(until)s
LEFT JOIN ops_view.job_runs r ON r.id = s.run
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;

-- name: balances_last
-- database: ops
-- The last balance of each provider and currency before a moment.
SELECT DISTINCT ON (provider, currency) provider, currency, amount, taken_at
FROM ops.balances WHERE taken_at < %(until)s ORDER BY provider, currency, taken_at DESC;

-- name: audit_by_actor
-- database: ops
-- What operators did in a span, by who, what and how it ended; an intent counts by its outcome.
SELECT a.who, a.action, a.outcome, count(*) AS events, max(a.at) AS last_at
FROM ops_view.audit_log a
WHERE a.outcome <> 'intent' AND a.at >= %(since)s AND a.at < %(until)s
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;

-- name: backup_checks_between
-- database: ops
-- Proofs and drills of a span, oldest first.
SELECT key, kind, ok, bytes, seconds, error, checked_at
FROM ops.backup_checks WHERE checked_at >= %(since)s AND checked_at < %(until)s ORDER BY checked_at, id;

-- name: runs_between
-- database: ops
-- Each job's runs queued in a span: how many ended how, after how many attempts, and how long they took.
SELECT r.job,
       count(*) FILTER (WHERE r.state = 'SUCCESS') AS success,
       count(*) FILTER (WHERE r.state = 'FAILED') AS failed,
       count(*) FILTER (WHERE r.state = 'CANCELLED') AS cancelled,
       count(*) FILTER (WHERE r.state = 'SUCCESS' AND r.attempt > 1) AS retried,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY r.duration) FILTER (WHERE r.finished IS NOT NULL) AS median_seconds,
       max(r.duration) FILTER (WHERE r.finished IS NOT NULL) AS longest_seconds
FROM ops_view.job_runs r
WHERE r.queued >= %(since)s AND r.queued < %(until)s
GROUP BY r.job ORDER BY r.job;
