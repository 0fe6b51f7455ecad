-- name: facts_oldest
-- database: app
-- The day of the oldest row any fact is counted from; NULL when there is none. Each table is asked along an index.
WITH RECURSIVE statuses AS (
    (SELECT status FROM ops_view.orders ORDER BY status LIMIT 1)
    UNION ALL
    SELECT (SELECT o.status FROM ops_view.orders o WHERE o.status > s.status ORDER BY o.status LIMIT 1)
    FROM statuses s WHERE s.status IS NOT NULL
), events AS (
    (SELECT event_type FROM ops_view.webhook_events ORDER BY event_type LIMIT 1)
    UNION ALL
    SELECT (SELECT e.event_type FROM ops_view.webhook_events e
            WHERE e.event_type > t.event_type ORDER BY e.event_type LIMIT 1)
    FROM events t WHERE t.event_type IS NOT NULL
), bounces AS (
    (SELECT type_native FROM ops_view.email_events ORDER BY type_native LIMIT 1)
    UNION ALL
    SELECT (SELECT e.type_native FROM ops_view.email_events e
            WHERE e.type_native > t.type_native ORDER BY e.type_native LIMIT 1)
    FROM bounces t WHERE t.type_native IS NOT NULL
)
SELECT least(
    (SELECT min(oldest.at) FROM statuses s CROSS JOIN LATERAL (
        SELECT o.created_at_utc AS at FROM ops_view.orders o WHERE o.status = s.status ORDER BY o.created_at_utc LIMIT 1
    ) oldest),
    (SELECT created_at_utc FROM ops_view.payments ORDER BY created_at_utc LIMIT 1),
    (SELECT min(oldest.at) FROM events t CROSS JOIN (VALUES (true), (false)) AS p (processed) CROSS JOIN LATERAL (
        SELECT e.created_at_utc AS at FROM ops_view.webhook_events e
        WHERE e.event_type = t.event_type AND e.processed = p.processed ORDER BY e.created_at_utc LIMIT 1
    ) oldest),
    (SELECT created_at_utc FROM ops_view.deliveries ORDER BY created_at_utc LIMIT 1),
    (SELECT min(oldest.at) FROM bounces t CROSS JOIN LATERAL (
        SELECT e.created_at_utc AS at FROM ops_view.email_events e
        WHERE e.type_native = t.type_native ORDER BY e.created_at_utc LIMIT 1
    ) oldest)
)::date AS day;

-- name: facts_orders
-- database: app
-- Orders created on each day of a span, and their value in EUR, by the status they have now.
WITH RECURSIVE statuses AS (
    (SELECT status FROM ops_view.orders ORDER BY status LIMIT 1)
    UNION ALL
    SELECT (SELECT o.status FROM ops_view.orders o WHERE o.status > s.status ORDER BY o.status LIMIT 1)
    FROM statuses s WHERE s.status IS NOT NULL
), counted AS (
    SELECT o.created_at_utc::date AS day, s.status, count(*)::numeric AS events, sum(o.total_eur) AS total_eur
    FROM statuses s
    CROSS JOIN LATERAL (
        SELECT n.created_at_utc, n.total_eur FROM ops_view.orders n
        WHERE n.status = s.status
          AND n.created_at_utc >= %(since)s::timestamptz AT TIME ZONE 'UTC'
          AND n.created_at_utc < %(until)s::timestamptz AT TIME ZONE 'UTC'
    ) o
    GROUP BY 1, 2
)
SELECT day, fact.subject, status AS key, fact.value
FROM counted CROSS JOIN LATERAL (VALUES ('orders', events), ('orders_eur', total_eur)) AS fact (subject, value);

-- name: facts_payments
-- database: app
-- Payments created on each day of a span by the status they have now.
SELECT created_at_utc::date AS day, 'payments' AS subject, status AS key, count(*)::numeric AS value
FROM ops_view.payments
WHERE created_at_utc >= %(since)s::timestamptz AT TIME ZONE 'UTC'
  AND created_at_utc < %(until)s::timestamptz AT TIME ZONE 'UTC'
GROUP BY 1, 3;

-- name: facts_webhooks
-- database: app
-- Webhook calls on each day of a span by provider and outcome.
WITH RECURSIVE types AS (
    (SELECT event_type FROM ops_view.webhook_events ORDER BY event_type LIMIT 1)
    UNION ALL
    SELECT (SELECT e.event_type FROM ops_view.webhook_events e
            WHERE e.event_type > t.event_type ORDER BY e.event_type LIMIT 1)
    FROM types t WHERE t.event_type IS NOT NULL
)
SELECT e.created_at_utc::date AS day, 'webhooks' AS subject, e.provider || '/' || e.outcome AS key, count(*)::numeric AS value
FROM ops_view.webhook_events e
WHERE e.event_type = ANY (ARRAY(SELECT event_type FROM types)) AND e.processed IN (true, false)
  AND e.created_at_utc >= %(since)s::timestamptz AT TIME ZONE 'UTC'
  AND e.created_at_utc < %(until)s::timestamptz AT TIME ZONE 'UTC'
GROUP BY 1, 3;

-- name: facts_bounces
-- database: app
-- E-mail bounces recorded on each day of a span by type.
WITH RECURSIVE types AS (
    (SELECT type_native FROM ops_view.email_events ORDER BY type_native LIMIT 1)
    UNION ALL
    SELECT (SELECT e.type_native FROM ops_view.email_events e
            WHERE e.type_native > t.type_native ORDER BY e.type_native LIMIT 1)
    FROM types t WHERE t.type_native IS NOT NULL
)
SELECT e.created_at_utc::date AS day, 'email_bounces' AS subject, e.type AS key, count(*)::numeric AS value
FROM types t
CROSS JOIN LATERAL (
    SELECT b.created_at_utc, b.type FROM ops_view.email_events b
    WHERE b.type_native = t.type_native
      AND b.created_at_utc >= %(since)s::timestamptz AT TIME ZONE 'UTC'
      AND b.created_at_utc < %(until)s::timestamptz AT TIME ZONE 'UTC'
) e
GROUP BY 1, 3;

-- name: facts_deliveries
-- database: app
-- Keys delivered on each day of a span.
SELECT created_at_utc::date AS day, 'deliveries' AS subject, '' AS key, count(*)::numeric AS value
FROM ops_view.deliveries
WHERE created_at_utc >= %(since)s::timestamptz AT TIME ZONE 'UTC'
  AND created_at_utc < %(until)s::timestamptz AT TIME ZONE 'UTC'
GROUP BY 1;

-- name: facts_runs
-- database: ops
-- Job runs that ended on each day of a span by job and outcome.
SELECT (finished AT TIME ZONE 'UTC')::date AS day, 'job_runs' AS subject, job || '/' || outcome AS key, count(*)::numeric AS value
FROM ops_view.job_runs
WHERE outcome IS NOT NULL AND finished >= %(since)s AND finished < %(until)s
GROUP BY 1, 3;

-- name: facts_readings
-- database: ops
-- Counters as they stand: jobs of the application's queues by queue and result, and e-mails it failed to send. Their
-- rows and events are gone at once, so a day is the difference of two readings.
SELECT reading.subject, reading.key, sum(reading.value) AS value
FROM (
    SELECT CASE series::jsonb ->> 0 WHEN 'bitloot_queue_jobs_total' THEN 'queue_jobs_total' ELSE 'emails_failed_total' END
               AS subject,
           coalesce(series::jsonb ->> 1 || '/' || (series::jsonb ->> 2), '') AS key,
           (value ->> 0)::numeric AS value
    FROM ops.exporter_series
    WHERE starts_with(series, '["bitloot_queue_jobs_total",') OR starts_with(series, '["app_email_fail_total"')
) reading
GROUP BY 1, 2;

-- name: facts_days
-- database: ops
-- Days whose facts are written, and whether for good.
SELECT day, final FROM ops.fact_days;

-- name: facts_between
-- database: ops
-- Every fact of a span of days, its last day included.
SELECT day, subject, key, value FROM ops.daily_facts WHERE day BETWEEN %(first)s AND %(last)s ORDER BY day, subject, key;

-- name: webhook_logs_oldest
-- database: app
-- The day of the oldest webhook row; NULL when there is none.
WITH RECURSIVE types AS (
    (SELECT event_type FROM ops_view.webhook_events ORDER BY event_type LIMIT 1)
    UNION ALL
    SELECT (SELECT e.event_type FROM ops_view.webhook_events e
            WHERE e.event_type > t.event_type ORDER BY e.event_type LIMIT 1)
    FROM types t WHERE t.event_type IS NOT NULL
)
SELECT min(oldest.at)::date AS day
FROM types t
CROSS JOIN (VALUES (true), (false)) AS p (processed)
CROSS JOIN LATERAL (
    SELECT e.created_at_utc AS at FROM ops_view.webhook_events e
    WHERE e.event_type = t.event_type AND e.processed = p.processed ORDER BY e.created_at_utc LIMIT 1
) oldest;

-- name: job_runs_oldest
-- database: ops
-- The day on which the oldest run still remembered ended; NULL when there is none.
SELECT (min(finished) AT TIME ZONE 'UTC')::date AS day FROM ops_view.job_runs WHERE outcome IS NOT NULL;

-- name: archives_of
-- database: ops
-- What was archived of one source's day.
SELECT key, sha256, bytes, lines, purged_at FROM ops.archives WHERE source = %(source)s AND day = %(day)s;

-- name: ledger_backfilling
-- database: ops
-- Families of the ledger whose history is still being added: rows that went now would never be counted.
SELECT family FROM ops.ledger_marks WHERE backfilled_at IS NULL;
