-- name: orders_newest
-- database: app
-- Orders, newest first: a page of each status along (status, created), then the newest of those. Sorting the table by
-- its creation instead reads all of it.
WITH RECURSIVE hop AS (
    (SELECT status AS value FROM ops_view.orders ORDER BY status LIMIT 1)
    UNION ALL
    SELECT (SELECT n.status FROM ops_view.orders n
            WHERE n.status > hop.value ORDER BY n.status LIMIT 1)
    FROM hop WHERE hop.value IS NOT NULL
)
SELECT o.id AS order_id, o.email_masked AS email, o.status, o.total_eur AS total, o.created_at,
       o.source_type AS source, o.user_id, o.reservation_id, o.completion_email_sent, o.updated_at
FROM hop
CROSS JOIN LATERAL (
    SELECT * FROM ops_view.orders o
    WHERE o.status = hop.value
      AND o.created_at_utc >= %(from)s::timestamptz AT TIME ZONE 'UTC' -- if: from
      AND o.created_at_utc < %(to)s::timestamptz AT TIME ZONE 'UTC' -- if: to
      AND (o.created_at_utc, o.id) < (%(after_at)s::timestamptz AT TIME ZONE 'UTC', %(after_id)s) -- if: after_at
    ORDER BY o.created_at_utc DESC, o.id DESC LIMIT %(limit)s::bigint
) o
WHERE hop.value IS NOT NULL
  AND hop.value = %(status)s -- if: status
ORDER BY o.created_at_utc DESC, o.id DESC LIMIT %(limit)s::bigint;

-- name: orders_of_email
-- database: app
-- Orders of one address, newest first: who knows it finds them, nobody reads it.
SELECT o.id AS order_id, o.email_masked AS email, o.status, o.total_eur AS total, o.created_at,
       o.source_type AS source, o.user_id, o.reservation_id, o.completion_email_sent, o.updated_at
FROM ops_view.order_ids_by_email(%(email)s) AS found (id)
JOIN ops_view.orders o ON o.id = found.id
WHERE true
  AND o.status = %(status)s -- if: status
  AND o.created_at_utc >= %(from)s::timestamptz AT TIME ZONE 'UTC' -- if: from
  AND o.created_at_utc < %(to)s::timestamptz AT TIME ZONE 'UTC' -- if: to
  AND (o.created_at_utc, o.id) < (%(after_at)s::timestamptz AT TIME ZONE 'UTC', %(after_id)s) -- if: after_at
ORDER BY o.created_at_utc DESC, o.id DESC LIMIT %(limit)s::bigint;

-- name: order_one
-- database: app
-- One order.
SELECT o.id AS order_id, o.email_masked AS email, o.status, o.total_eur AS total, o.created_at,
       o.source_type AS source, o.user_id, o.reservation_id, o.completion_email_sent, o.updated_at
FROM ops_view.orders o WHERE o.id = %(order)s;

-- name: order_items
-- database: app
-- An order's items.
SELECT i.id AS item_id, i.product_id, i.quantity, i.unit_price, i.source_type AS source, i.created_at
FROM ops_view.order_item_ids(%(order)s) AS found (id)
JOIN ops_view.order_items i ON i.id = found.id
ORDER BY i.created_at, i.id;

-- name: order_deliveries
-- database: app
-- The keys handed out for an order, in order; of the key itself nothing.
SELECT d.id AS key_id, d.order_item_id AS item_id, d.created_at, d.viewed_at, d.download_count
FROM ops_view.order_item_ids(%(order)s) AS found (id)
JOIN ops_view.deliveries d ON d.order_item_id = found.id
ORDER BY d.created_at, d.id;

-- name: payments_newest
-- database: app
-- Payments, newest first, along their creation, their order or their provider's id.
SELECT p.id AS payment_id, p.order_id, p.provider, p.external_id, p.status, p.price_amount, p.price_currency,
       p.pay_amount, p.pay_currency, p.confirmations, p.created_at, p.updated_at
FROM ops_view.payments p
WHERE true
  AND p.status_native = %(status)s -- if: status
  AND p.provider = %(provider)s -- if: provider
  AND p.order_id = %(order)s -- if: order
  AND p.external_id = %(external)s -- if: external
  AND p.created_at_utc >= %(from)s::timestamptz AT TIME ZONE 'UTC' -- if: from
  AND p.created_at_utc < %(to)s::timestamptz AT TIME ZONE 'UTC' -- if: to
  AND (p.created_at_utc, p.id) < (%(after_at)s::timestamptz AT TIME ZONE 'UTC', %(after_id)s) -- if: after_at
ORDER BY p.created_at_utc DESC, p.id DESC LIMIT %(limit)s::bigint;

-- name: webhooks_newest
-- database: app
-- Webhook events, newest first: a page of each type, processed and not, along the index that leads with both. What is
-- asked of a row's content (provider, outcome, a part of its error) is looked for on the way back in time.
WITH RECURSIVE hop AS (
    (SELECT event_type AS value FROM ops_view.webhook_events ORDER BY event_type LIMIT 1)
    UNION ALL
    SELECT (SELECT n.event_type FROM ops_view.webhook_events n
            WHERE n.event_type > hop.value ORDER BY n.event_type LIMIT 1)
    FROM hop WHERE hop.value IS NOT NULL
)
SELECT e.id AS event_id, e.provider, e.event_type, e.external_id, e.outcome, e.settled, e.payment_status,
       e.claimed_status, e.order_id, e.payment_id, e.error, e.attempt_count, e.occurred_at, e.updated_at
FROM hop
CROSS JOIN (VALUES (true), (false)) AS p (processed)
CROSS JOIN LATERAL (
    SELECT * FROM ops_view.webhook_events e
    WHERE e.event_type = hop.value AND e.processed = p.processed
      AND e.provider = %(provider)s -- if: provider
      AND e.outcome = %(outcome)s -- if: outcome
      AND position(lower(%(error)s) IN lower(e.error)) > 0 -- if: error
      AND e.created_at_utc >= %(from)s::timestamptz AT TIME ZONE 'UTC' -- if: from
      AND e.created_at_utc < %(to)s::timestamptz AT TIME ZONE 'UTC' -- if: to
      AND (e.created_at_utc, e.id) < (%(after_at)s::timestamptz AT TIME ZONE 'UTC', %(after_id)s) -- if: after_at
    ORDER BY e.created_at_utc DESC, e.id DESC LIMIT %(limit)s::bigint
) e
WHERE hop.value IS NOT NULL
  AND hop.value = %(type)s -- if: type
ORDER BY e.created_at_utc DESC, e.id DESC LIMIT %(limit)s::bigint;

-- name: webhooks_about
-- database: app
-- Webhook events about an order or anything its providers call it, newest first.
SELECT e.id AS event_id, e.provider, e.event_type, e.external_id, e.outcome, e.settled, e.payment_status,
       e.claimed_status, e.order_id, e.payment_id, e.error, e.attempt_count, e.occurred_at, e.updated_at
FROM ops_view.webhook_events e
WHERE (e.external_id = ANY (%(externals)s::text[]) OR e.order_id = %(order)s)
  AND e.event_type = %(type)s -- if: type
  AND e.provider = %(provider)s -- if: provider
  AND e.outcome = %(outcome)s -- if: outcome
  AND position(lower(%(error)s) IN lower(e.error)) > 0 -- if: error
  AND e.created_at_utc >= %(from)s::timestamptz AT TIME ZONE 'UTC' -- if: from
  AND e.created_at_utc < %(to)s::timestamptz AT TIME ZONE 'UTC' -- if: to
  AND (e.created_at_utc, e.id) < (%(after_at)s::timestamptz AT TIME ZONE 'UTC', %(after_id)s) -- if: after_at
ORDER BY e.created_at_utc DESC, e.id DESC LIMIT %(limit)s::bigint;

-- name: reservations_newest
-- database: app
-- What is set aside, newest first: at Kinguin, along the orders of each status; in our own inventory, which is small.
WITH RECURSIVE hop AS (
    (SELECT status AS value FROM ops_view.orders ORDER BY status LIMIT 1)
    UNION ALL
    SELECT (SELECT n.status FROM ops_view.orders n
            WHERE n.status > hop.value ORDER BY n.status LIMIT 1)
    FROM hop WHERE hop.value IS NOT NULL
)
SELECT r.order_id, r.place, r.reservation_id, r.state, r.order_status, r.reserved_at,
       now() - r.reserved_at AS age, r.cost_eur
FROM (
    SELECT kinguin.* FROM hop
    CROSS JOIN LATERAL (
        SELECT * FROM ops_view.reservations r
        WHERE r.place = 'kinguin' AND r.order_status = hop.value
          AND r.state = %(state)s -- if: state
          AND r.order_id = %(order)s -- if: order
          AND r.reserved_at_utc >= %(from)s::timestamptz AT TIME ZONE 'UTC' -- if: from
          AND r.reserved_at_utc < %(to)s::timestamptz AT TIME ZONE 'UTC' -- if: to
          AND (reserved_at_utc, reservation_id) < (%(after_at)s::timestamptz AT TIME ZONE 'UTC', %(after_id)s) -- if: after_at
        ORDER BY r.reserved_at_utc DESC, r.reservation_id DESC LIMIT %(limit)s::bigint
    ) kinguin
    WHERE hop.value IS NOT NULL
    UNION ALL
    SELECT * FROM (
        SELECT * FROM ops_view.reservations r
        WHERE r.place = 'inventory'
          AND r.state = %(state)s -- if: state
          AND r.order_id = %(order)s -- if: order
          AND r.reserved_at_utc >= %(from)s::timestamptz AT TIME ZONE 'UTC' -- if: from
          AND r.reserved_at_utc < %(to)s::timestamptz AT TIME ZONE 'UTC' -- if: to
          AND (reserved_at_utc, reservation_id) < (%(after_at)s::timestamptz AT TIME ZONE 'UTC', %(after_id)s) -- if: after_at
        ORDER BY r.reserved_at_utc DESC NULLS LAST, r.reservation_id DESC LIMIT %(limit)s::bigint
    ) inventory
) r
WHERE true
  AND r.place = %(place)s -- if: place
ORDER BY r.reserved_at_utc DESC NULLS LAST, r.reservation_id DESC LIMIT %(limit)s::bigint;

-- name: users_newest
-- database: app
-- Users, newest first.
SELECT u.id AS user_id, u.email_masked AS email, u.role, u.suspended, u.email_confirmed, u.last_login_at, u.created_at,
       u.deletion_requested_at, u.deleted_at
FROM ops_view.user_ids_newest(
    %(role)s, %(suspended)s, %(from)s::timestamptz, %(to)s::timestamptz, %(after_at)s::timestamptz, %(after_id)s,
    %(limit)s::bigint
) AS found (id)
JOIN ops_view.users u ON u.id = found.id
ORDER BY u.created_at_utc DESC, u.id DESC;

-- name: users_of_email
-- database: app
-- The user of one address: who knows it finds them, nobody reads it.
SELECT u.id AS user_id, u.email_masked AS email, u.role, u.suspended, u.email_confirmed, u.last_login_at, u.created_at,
       u.deletion_requested_at, u.deleted_at
FROM ops_view.user_ids_by_email(%(email)s) AS found (id)
JOIN ops_view.users u ON u.id = found.id
WHERE true
  AND u.role = %(role)s -- if: role
  AND u.suspended = %(suspended)s -- if: suspended
  AND u.created_at_utc >= %(from)s::timestamptz AT TIME ZONE 'UTC' -- if: from
  AND u.created_at_utc < %(to)s::timestamptz AT TIME ZONE 'UTC' -- if: to
  AND (u.created_at_utc, u.id) < (%(after_at)s::timestamptz AT TIME ZONE 'UTC', %(after_id)s) -- if: after_at
ORDER BY u.created_at_utc DESC, u.id DESC LIMIT %(limit)s::bigint;

-- name: sessions_newest
-- database: app
-- Sessions, the one that ends last first: what an index of the application serves, and as good as newest first.
SELECT s.id AS session_id, s.user_id, s.revoked, s.expires_at, s.last_active_at, s.created_at
FROM ops_view.sessions s
WHERE true
  AND s.user_id = %(user)s -- if: user
  AND s.revoked = %(revoked)s -- if: revoked
  AND s.expires_at >= %(from)s::timestamptz -- if: from
  AND s.expires_at < %(to)s::timestamptz -- if: to
  AND (s.expires_at, s.id) < (%(after_at)s::timestamptz, %(after_id)s) -- if: after_at
ORDER BY s.expires_at DESC, s.id DESC LIMIT %(limit)s::bigint;

-- name: app_audit_newest
-- database: app
-- What the application's admins did, newest first, never with what: a payload can hold product keys. A page of each
-- admin along (admin, created), as they are few.
WITH RECURSIVE hop AS (
    (SELECT admin_user_id AS value FROM ops_view.app_audit ORDER BY admin_user_id LIMIT 1)
    UNION ALL
    SELECT (SELECT n.admin_user_id FROM ops_view.app_audit n
            WHERE n.admin_user_id > hop.value ORDER BY n.admin_user_id LIMIT 1)
    FROM hop WHERE hop.value IS NOT NULL
)
SELECT a.id AS entry_id, a.created_at, a.admin_user_id, a.action, a.target
FROM hop
CROSS JOIN LATERAL (
    SELECT * FROM ops_view.app_audit a
    WHERE a.admin_user_id = hop.value
      AND a.action = %(action)s -- if: action
      AND a.target = %(target)s -- if: target
      AND a.created_at_utc >= %(from)s::timestamptz AT TIME ZONE 'UTC' -- if: from
      AND a.created_at_utc < %(to)s::timestamptz AT TIME ZONE 'UTC' -- if: to
      AND (a.created_at_utc, a.id) < (%(after_at)s::timestamptz AT TIME ZONE 'UTC', %(after_id)s) -- if: after_at
    ORDER BY a.created_at_utc DESC, a.id DESC LIMIT %(limit)s::bigint
) a
WHERE hop.value IS NOT NULL
  AND hop.value = %(admin)s -- if: admin
ORDER BY a.created_at_utc DESC, a.id DESC LIMIT %(limit)s::bigint;

-- name: orders_export
-- database: app
-- Orders of a span, oldest first.
WITH RECURSIVE hop AS (
    (SELECT status AS value FROM ops_view.orders ORDER BY status LIMIT 1)
    UNION ALL
    SELECT (SELECT n.status FROM ops_view.orders n
            WHERE n.status > hop.value ORDER BY n.status LIMIT 1)
    FROM hop WHERE hop.value IS NOT NULL
)
SELECT o.id AS order_id, o.email_masked AS email, o.status, o.total_eur AS total, o.created_at,
       o.source_type AS source, o.user_id, o.reservation_id, o.completion_email_sent, o.updated_at
FROM ops_view.orders o
WHERE o.status = ANY (ARRAY(SELECT value FROM hop))
  AND o.status = %(status)s -- if: status
  AND o.id IN (SELECT ops_view.order_ids_by_email(%(email)s)) -- if: email
  AND o.created_at_utc >= %(from)s::timestamptz AT TIME ZONE 'UTC' -- if: from
  AND o.created_at_utc < %(to)s::timestamptz AT TIME ZONE 'UTC' -- if: to
  AND (o.created_at_utc, o.id) > (%(after_at)s::timestamptz AT TIME ZONE 'UTC', %(after_id)s) -- if: after_at
ORDER BY o.created_at_utc, o.id;

-- name: payments_export
-- database: app
-- Payments of a span, oldest first.
SELECT p.id AS payment_id, p.order_id, p.provider, p.external_id, p.status, p.price_amount, p.price_currency,
       p.pay_amount, p.pay_currency, p.confirmations, p.created_at, p.updated_at
FROM ops_view.payments p
WHERE true
  AND p.status_native = %(status)s -- if: status
  AND p.provider = %(provider)s -- if: provider
  AND p.order_id IN (SELECT ops_view.order_ids_by_email(%(email)s)) -- if: email
  AND p.created_at_utc >= %(from)s::timestamptz AT TIME ZONE 'UTC' -- if: from
  AND p.created_at_utc < %(to)s::timestamptz AT TIME ZONE 'UTC' -- if: to
  AND (p.created_at_utc, p.id) > (%(after_at)s::timestamptz AT TIME ZONE 'UTC', %(after_id)s) -- if: after_at
ORDER BY p.created_at_utc, p.id;

-- name: webhooks_export
-- database: app
-- Webhook events of a span, oldest first.
WITH RECURSIVE hop AS (
    (SELECT event_type AS value FROM ops_view.webhook_events ORDER BY event_type LIMIT 1)
    UNION ALL
    SELECT (SELECT n.event_type FROM ops_view.webhook_events n
            WHERE n.event_type > hop.value ORDER BY n.event_type LIMIT 1)
    FROM hop WHERE hop.value IS NOT NULL
)
SELECT e.id AS event_id, e.provider, e.event_type, e.external_id, e.outcome, e.settled, e.payment_status,
       e.claimed_status, e.order_id, e.payment_id, e.error, e.attempt_count, e.occurred_at, e.updated_at
FROM ops_view.webhook_events e
WHERE e.event_type = ANY (ARRAY(SELECT value FROM hop)) AND e.processed IN (true, false)
  AND e.event_type = %(type)s -- if: type
  AND e.provider = %(provider)s -- if: provider
  AND e.outcome = %(status)s -- if: status
  AND e.created_at_utc >= %(from)s::timestamptz AT TIME ZONE 'UTC' -- if: from
  AND e.created_at_utc < %(to)s::timestamptz AT TIME ZONE 'UTC' -- if: to
  AND (e.created_at_utc, e.id) > (%(after_at)s::timestamptz AT TIME ZONE 'UTC', %(after_id)s) -- if: after_at
ORDER BY e.created_at_utc, e.id;

-- name: reservations_export
-- database: app
-- What was set aside in a span, oldest first.
WITH RECURSIVE hop AS (
    (SELECT status AS value FROM ops_view.orders ORDER BY status LIMIT 1)
    UNION ALL
    SELECT (SELECT n.status FROM ops_view.orders n
            WHERE n.status > hop.value ORDER BY n.status LIMIT 1)
    FROM hop WHERE hop.value IS NOT NULL
)
SELECT r.order_id, r.place, r.reservation_id, r.state, r.order_status, r.reserved_at,
       now() - r.reserved_at AS age, r.cost_eur
FROM (
    SELECT * FROM ops_view.reservations k
    WHERE k.place = 'kinguin' AND k.order_status = ANY (ARRAY(SELECT value FROM hop))
    UNION ALL
    SELECT * FROM ops_view.reservations i WHERE i.place = 'inventory'
) r
WHERE true
  AND r.state = %(status)s -- if: status
  AND r.order_id IN (SELECT ops_view.order_ids_by_email(%(email)s)) -- if: email
  AND r.reserved_at_utc >= %(from)s::timestamptz AT TIME ZONE 'UTC' -- if: from
  AND r.reserved_at_utc < %(to)s::timestamptz AT TIME ZONE 'UTC' -- if: to
  AND (reserved_at_utc, reservation_id) > (%(after_at)s::timestamptz AT TIME ZONE 'UTC', %(after_id)s) -- if: after_at
ORDER BY r.reserved_at_utc, r.reservation_id;

-- name: job_runs_export
-- database: ops
-- Runs of jobs of a span, oldest first.
SELECT r.id AS run, r.queued, r.job, r.state, r.slot, r.started, r.finished, r.queue_delay, r.duration, r.attempt, r.node,
       r.triggered_by, r.cancel_requested_by, r.parameters, r.error
FROM ops_view.job_runs r
WHERE true
  AND r.state = %(status)s -- if: status
  AND r.queued >= %(from)s::timestamptz -- if: from
  AND r.queued < %(to)s::timestamptz -- if: to
  AND r.id > %(after_id)s -- if: after_at
ORDER BY r.id;

-- name: audit_export
-- database: ops
-- What operators did in a span, oldest first; `opsctl audit export` writes the chain with its hashes.
SELECT a.seq, a.at, a.who, a.role, a.action, a.target, a.reason, a.outcome, a.error, a.intent, a.duration_ms
FROM ops_view.audit_log a
WHERE true
  AND a.outcome = %(status)s -- if: status
  AND a.at >= %(from)s::timestamptz -- if: from
  AND a.at < %(to)s::timestamptz -- if: to
  AND a.seq > %(after_id)s -- if: after_at
ORDER BY a.seq;
