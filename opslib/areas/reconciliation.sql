-- name: orders_by_status
-- database: app
-- Orders in each status. The statuses are found by hopping along the index that leads with them, and counted in it one
-- by one: a third of the time of a GROUP BY, which reads the table, and with parallel workers at that.
WITH RECURSIVE statuses AS (
    (SELECT status FROM ops_view.orders ORDER BY status LIMIT 1)
    UNION ALL
    SELECT (SELECT o.status FROM ops_view.orders o WHERE o.status > s.status ORDER BY o.status LIMIT 1)
    FROM statuses s WHERE s.status IS NOT NULL
)
SELECT s.status, (SELECT count(*) FROM ops_view.orders o WHERE o.status = s.status) AS count
FROM statuses s WHERE s.status IS NOT NULL;

-- name: payments_by_status
-- database: app
-- Payments in each status, in the same way.
WITH RECURSIVE statuses AS (
    (SELECT status_native FROM ops_view.payments ORDER BY status_native LIMIT 1)
    UNION ALL
    SELECT (SELECT p.status_native FROM ops_view.payments p
            WHERE p.status_native > s.status_native ORDER BY p.status_native LIMIT 1)
    FROM statuses s WHERE s.status_native IS NOT NULL
)
SELECT s.status_native::text AS status,
       (SELECT count(*) FROM ops_view.payments p WHERE p.status_native = s.status_native) AS count
FROM statuses s WHERE s.status_native IS NOT NULL;

-- name: paid_unfulfilled
-- database: app
-- Orders paid and not fulfilled: how many, since when, worth what.
SELECT count(*) AS count, extract(epoch FROM now() - min(updated_at))::float8 AS oldest_seconds,
       coalesce(sum(total_eur), 0)::float8 AS value_eur
FROM ops_view.orders WHERE status = 'paid';

-- name: payment_finished_order_unmoved
-- database: app
-- Payments finished whose order still waits.
SELECT count(*) AS count, extract(epoch FROM now() - min(p.updated_at))::float8 AS oldest_seconds,
       coalesce(sum(o.total_eur), 0)::float8 AS value_eur
FROM ops_view.orders o
CROSS JOIN LATERAL (
    SELECT min(p.updated_at) AS updated_at FROM ops_view.payments p WHERE p.order_id = o.id AND p.status = 'finished'
) p
WHERE o.status IN ('created', 'waiting', 'confirming') AND p.updated_at IS NOT NULL;

-- name: ipn_dropped
-- database: app
-- Orders not paid for which the provider reported a status that was dropped as a duplicate and never processed.
-- Seven days: a payment address lives no longer.
SELECT count(*) AS count, extract(epoch FROM now() - min(dropped.at))::float8 AS oldest_seconds,
       coalesce(sum(o.total_eur), 0)::float8 AS value_eur
FROM ops_view.orders o
CROSS JOIN LATERAL (
    SELECT min(e.occurred_at) AS at
    FROM ops_view.payments p
    JOIN ops_view.webhook_events e ON e.external_id = p.external_id
    WHERE p.order_id = o.id AND e.outcome = 'duplicate'
      AND e.created_at_utc < (now() - %(settle)s::interval) AT TIME ZONE 'UTC'
      AND NOT EXISTS (SELECT FROM ops_view.webhook_events done
                      WHERE done.external_id = e.external_id AND done.outcome = 'ok'
                        AND done.payment_status = e.claimed_status)
) dropped
WHERE o.status IN ('created', 'waiting', 'confirming', 'underpaid', 'expired', 'failed')
  AND o.created_at_utc >= (now() - interval '7 days') AT TIME ZONE 'UTC'
  AND dropped.at IS NOT NULL;

-- name: reservation_leaked
-- database: app
-- Inventory still reserved for an order that is over.
SELECT count(*) AS count, extract(epoch FROM now() - min(reserved_at))::float8 AS oldest_seconds,
       coalesce(sum(cost_eur), 0)::float8 AS value_eur
FROM ops_view.reservations
WHERE place = 'inventory' AND state = 'reserved'
  AND order_status IN ('fulfilled', 'failed', 'expired', 'refunded', 'cancelled');

-- name: fulfilled_without_payment
-- database: app
-- Orders of the last seven days fulfilled although no payment row exists.
SELECT count(*) AS count, extract(epoch FROM now() - min(o.updated_at))::float8 AS oldest_seconds,
       coalesce(sum(o.total_eur), 0)::float8 AS value_eur
FROM ops_view.orders o
WHERE o.status = 'fulfilled' AND o.created_at_utc >= (now() - interval '7 days') AT TIME ZONE 'UTC'
  AND NOT EXISTS (SELECT FROM ops_view.payments p WHERE p.order_id = o.id);
