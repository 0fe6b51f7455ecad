-- name: clock
-- database: app
-- The server's own time: every horizon is measured on the clock that stamped the rows.
SELECT clock_timestamp() AS now;

-- name: webhook_since
-- database: app
-- Webhook events of a span (its end may be infinity) whose outcome is settled. The event types are found by hopping along the index that
-- leads with them, so that a type nobody told us about is counted too, and the index serves the time range. They go in as
-- an array: a join with them costs a fifth more.
WITH RECURSIVE types AS (
    (SELECT event_type FROM ops_view.webhook_events ORDER BY event_type LIMIT 1)
    UNION ALL
    SELECT (SELECT e.event_type FROM ops_view.webhook_events e
            WHERE e.event_type > t.event_type ORDER BY e.event_type LIMIT 1)
    FROM types t WHERE t.event_type IS NOT NULL
)
SELECT e.id::text AS id, e.provider AS subject, e.outcome, e.occurred_at AS created, 0::float8 AS amount
FROM ops_view.webhook_events e
WHERE e.event_type = ANY (ARRAY(SELECT event_type FROM types)) AND e.processed IN (true, false)
  AND e.created_at_utc >= %(since)s::timestamptz AT TIME ZONE 'UTC'
  AND e.created_at_utc < %(until)s::timestamptz AT TIME ZONE 'UTC'
  AND (e.final OR e.created_at_utc < (now() - %(settle)s::interval) AT TIME ZONE 'UTC');

-- name: webhook_slice
-- database: app
-- Where a slice of the back-fill ends: the time of the last of the next so many rows after a moment; NULL when none.
WITH RECURSIVE types AS (
    (SELECT event_type FROM ops_view.webhook_events ORDER BY event_type LIMIT 1)
    UNION ALL
    SELECT (SELECT e.event_type FROM ops_view.webhook_events e
            WHERE e.event_type > t.event_type ORDER BY e.event_type LIMIT 1)
    FROM types t WHERE t.event_type IS NOT NULL
)
SELECT max(next.created_at_utc) AT TIME ZONE 'UTC' AS until
FROM (
    SELECT e.created_at_utc
    FROM types t
    CROSS JOIN (VALUES (true), (false)) AS p (processed)
    CROSS JOIN LATERAL (
        SELECT w.created_at_utc FROM ops_view.webhook_events w
        WHERE w.event_type = t.event_type AND w.processed = p.processed
          AND w.created_at_utc > %(since)s::timestamptz AT TIME ZONE 'UTC'
          AND w.created_at_utc < %(until)s::timestamptz AT TIME ZONE 'UTC'
        ORDER BY w.created_at_utc LIMIT %(slice)s
    ) e
    ORDER BY e.created_at_utc LIMIT %(slice)s
) next;

-- name: webhook_history
-- database: app
-- Webhook events of a span, after its start and up to its end, by provider and outcome: one slice of the back-fill.
WITH RECURSIVE types AS (
    (SELECT event_type FROM ops_view.webhook_events ORDER BY event_type LIMIT 1)
    UNION ALL
    SELECT (SELECT e.event_type FROM ops_view.webhook_events e
            WHERE e.event_type > t.event_type ORDER BY e.event_type LIMIT 1)
    FROM types t WHERE t.event_type IS NOT NULL
)
SELECT e.provider AS subject, e.outcome, count(*) AS events, 0::float8 AS amount
FROM ops_view.webhook_events e
WHERE e.event_type = ANY (ARRAY(SELECT event_type FROM types)) AND e.processed IN (true, false)
  AND e.created_at_utc > %(since)s::timestamptz AT TIME ZONE 'UTC'
  AND e.created_at_utc <= %(until)s::timestamptz AT TIME ZONE 'UTC'
GROUP BY e.provider, e.outcome;

-- name: underpaid_since
-- database: app
-- Underpaid orders created in a span.
SELECT id::text AS id, '' AS subject, 'underpaid' AS outcome, created_at AS created, 0::float8 AS amount
FROM ops_view.orders
WHERE status = 'underpaid'
  AND created_at_utc >= %(since)s::timestamptz AT TIME ZONE 'UTC'
  AND created_at_utc < %(until)s::timestamptz AT TIME ZONE 'UTC';

-- name: underpaid_history
-- database: app
-- How many orders of a span are underpaid.
SELECT '' AS subject, 'underpaid' AS outcome, count(*) AS events, 0::float8 AS amount
FROM ops_view.orders
WHERE status = 'underpaid'
  AND created_at_utc > %(since)s::timestamptz AT TIME ZONE 'UTC'
  AND created_at_utc <= %(until)s::timestamptz AT TIME ZONE 'UTC';

-- name: bounce_since
-- database: app
-- E-mail bounces recorded in a span, by type; the types are found by hopping along their index.
WITH RECURSIVE types AS (
    (SELECT type_native FROM ops_view.email_events ORDER BY type_native LIMIT 1)
    UNION ALL
    SELECT (SELECT e.type_native FROM ops_view.email_events e
            WHERE e.type_native > t.type_native ORDER BY e.type_native LIMIT 1)
    FROM types t WHERE t.type_native IS NOT NULL
)
SELECT e.id::text AS id, '' AS subject, e.type AS outcome, e.created_at_utc AT TIME ZONE 'UTC' AS created,
       0::float8 AS amount
FROM types t
CROSS JOIN LATERAL (
    SELECT * FROM ops_view.email_events b
    WHERE b.type_native = t.type_native
      AND b.created_at_utc >= %(since)s::timestamptz AT TIME ZONE 'UTC'
      AND b.created_at_utc < %(until)s::timestamptz AT TIME ZONE 'UTC'
) e;

-- name: bounce_history
-- database: app
-- E-mail bounces of a span by type.
WITH RECURSIVE types AS (
    (SELECT type_native FROM ops_view.email_events ORDER BY type_native LIMIT 1)
    UNION ALL
    SELECT (SELECT e.type_native FROM ops_view.email_events e
            WHERE e.type_native > t.type_native ORDER BY e.type_native LIMIT 1)
    FROM types t WHERE t.type_native IS NOT NULL
)
SELECT '' AS subject, e.type AS outcome, count(*) AS events, 0::float8 AS amount
FROM types t
CROSS JOIN LATERAL (
    SELECT b.type FROM ops_view.email_events b
    WHERE b.type_native = t.type_native
      AND b.created_at_utc > %(since)s::timestamptz AT TIME ZONE 'UTC'
      AND b.created_at_utc <= %(until)s::timestamptz AT TIME ZONE 'UTC'
) e
GROUP BY e.type;

-- name: fulfilment_since
-- database: app
-- Orders whose keys were delivered in a span, with the seconds since their payment was reported finished.
-- Walks from the new keys to their orders: the item table has no index on its order. Amount is NULL where no IPN said
-- so (a payment found by polling, the legacy route).
SELECT d.order_id::text AS id, '' AS subject, 'fulfilled' AS outcome, max(d.created_at) AS created,
       -- greatest() passes over NULL: without the CASE an order nobody notified us of would take no time at all.
       CASE WHEN paid.at IS NOT NULL THEN greatest(extract(epoch FROM max(d.created_at) - paid.at), 0)::float8 END
           AS amount
FROM ops_view.deliveries d
JOIN ops_view.orders o ON o.id = d.order_id AND o.status = 'fulfilled'
LEFT JOIN LATERAL (
    SELECT min(e.occurred_at) AS at FROM ops_view.webhook_events e
    WHERE e.order_id = d.order_id AND e.outcome = 'ok' AND e.payment_status = 'finished'
) paid ON true
WHERE d.created_at_utc >= %(since)s::timestamptz AT TIME ZONE 'UTC'
  AND d.created_at_utc < %(until)s::timestamptz AT TIME ZONE 'UTC'
GROUP BY d.order_id, paid.at;

-- name: ledger_totals
-- database: ops
-- What a family has counted so far; no row before its back-fill has ended.
SELECT t.subject, t.outcome, t.events, t.amount
FROM ops.ledger_totals t
JOIN ops.ledger_marks m USING (family)
WHERE t.family = %(family)s AND m.backfilled_at IS NOT NULL;

-- name: ledger_reclassified
-- database: ops
-- Counted events of a family whose outcome changed afterwards.
SELECT subject, from_outcome, to_outcome, events FROM ops.ledger_reclassified WHERE family = %(family)s;

-- name: app_totals
-- database: ops
-- What the app exporter has counted for the ledger.
SELECT series, value FROM ops.exporter_series WHERE exporter = %(exporter)s;
