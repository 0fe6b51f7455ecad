-- The adapter of BitLoot (NestJS, TypeORM): canonical views over the application's own tables.
--
-- This is the only file that knows those tables. It is read in blocks, each introduced by a line `-- function: NAME`,
-- `-- view: NAME`, `-- write: NAME`, `-- grants: NAME` or `-- values: VIEW.COLUMN`; each block runs in a savepoint of its
-- own, so that one that no longer fits the application is named and the others stand all the same. Rules:
--
-- * Our own objects are written without a schema: they are created in `ops_view` (a `write` function in `ops_app`), and
--   in a scratch schema when `opsctl contract check` tries whether they still can be. The application's are written
--   `public.`.
-- * Beside a canonical column stands the raw, uncast one an index of the application serves (`created_at_utc`,
--   `status_native`, `event_type`, `processed`). Filter on those and convert the parameter, never the column:
--   `created_at_utc >= %(since)s::timestamptz AT TIME ZONE 'UTC'`.
-- * The application's `timestamp` columns hold UTC.
-- * A view is the only thing here the application's ALTER TABLE can trip over, and `opsctl contract suspend` removes the
--   views. Function bodies are strings, which depend on nothing.
-- * Who may read a view sees no e-mail, key, token or address in full. Views run with their owner's rights.
-- * A write function trusts its caller with nothing: it bounds what one call may do and refuses what nobody should ask.
--
-- The next lines are read, too. `big`: no query of ours may read one of these from end to end. `index`: what the named
-- queries rely on; `opsctl contract check` and the exporter say when it is missing, `opsctl contract tune` makes it.
-- `advice`: worth having, and nothing suffers without.
--
-- big: orders, order_items, payments, webhook_logs, keys, email_bounces, users, user_sessions, audit_logs
-- index: webhook_logs ("webhookType", processed, "createdAt") for webhook_since webhook_slice webhook_history facts_webhooks
-- index: webhook_logs ("externalId") for ipn_dropped webhooks_about
-- index: webhook_logs ("orderId") for fulfilment_since webhooks_about
-- index: orders (status, "createdAt") for orders_by_status paid_unfulfilled underpaid_since ipn_dropped orders_newest facts_orders orders_by_hour
-- index: payments (status) for payments_by_status
-- index: payments ("createdAt") for payments_newest facts_payments
-- index: payments ("orderId") for payment_finished_order_unmoved ipn_dropped fulfilled_without_payment payments_newest
-- index: keys ("createdAt") for fulfilment_since facts_deliveries
-- index: keys ("orderItemId") for order_deliveries
-- index: user_sessions ("expiresAt") for sessions_newest
-- index: audit_logs ("adminUserId", "createdAt") for app_audit_newest
-- index: email_bounces (type, "createdAt") for bounce_since bounce_history facts_bounces
-- advice: orders (email) for order_ids_by_email
-- advice: order_items ("orderId") for order_item_ids
-- advice: users ("createdAt") for users_newest

-- function: mask_email
-- `a***@example.com`. By left() and split_part(): 0.6 s per million, a regular expression takes 18 s. The last part,
-- because a quoted local part may hold an @ itself.
CREATE FUNCTION mask_email(address text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT left(address, 1) || '***' || CASE WHEN position('@' IN address) > 0
        THEN '@' || split_part(address, '@', -1) ELSE '' END
$$;
GRANT EXECUTE ON FUNCTION mask_email(text) TO PUBLIC; -- whoever may read a view may mask

-- function: mask_text
-- Free text (an error, a bounce reason) with every address in it masked, at most 300 characters. The regular expression
-- runs only on the few texts that hold an @, plain or percent-encoded.
CREATE FUNCTION mask_text(said text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN position('@' IN said) > 0 OR position('%40' IN said) > 0
        THEN left(regexp_replace(left(said, 2000), '([^\s<>"'':;,()@])[^\s<>"'':;,()@]*["'']?(@|%40)', '\1***\2', 'g'), 300)
        ELSE left(said, 300) END
$$;
GRANT EXECUTE ON FUNCTION mask_text(text) TO PUBLIC; -- whoever may read a view may mask

-- function: order_ids_by_email
-- Search without reading: who knows an address gets its orders' ids. The application has no index on it (see `advice`
-- above), so this reads the table once; for people, not for a refreshing panel.
CREATE FUNCTION order_ids_by_email(address text) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
    SELECT id FROM public.orders WHERE email = address
$$;
REVOKE ALL ON FUNCTION order_ids_by_email(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION order_ids_by_email(text) TO ops_grafana, ops_staff;

-- function: user_ids_by_email
CREATE FUNCTION user_ids_by_email(address text) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp AS $$
    SELECT id FROM public.users WHERE email = address
$$;
REVOKE ALL ON FUNCTION user_ids_by_email(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION user_ids_by_email(text) TO ops_grafana, ops_staff;

-- function: user_ids_newest
-- A page of users, newest first. The application has no index for it (see `advice` above), so this reads the table once
-- and keeps a page of it; for people, not for a refreshing panel.
CREATE FUNCTION user_ids_newest(
    of_role text, are_suspended boolean, since timestamptz, until timestamptz,
    before timestamptz, before_id text, page bigint
) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER ROWS 100 SET search_path = pg_catalog, pg_temp AS $$
    SELECT id FROM public.users
    WHERE role::text = coalesce(of_role, role::text) AND "isSuspended" = coalesce(are_suspended, "isSuspended")
      AND "createdAt" >= coalesce(since, '-infinity') AT TIME ZONE 'UTC'
      AND "createdAt" < coalesce(until, 'infinity') AT TIME ZONE 'UTC'
      AND ("createdAt", id) < (coalesce(before, 'infinity') AT TIME ZONE 'UTC', before_id::uuid)
    ORDER BY "createdAt" DESC, id DESC LIMIT page
$$;
REVOKE ALL ON FUNCTION user_ids_newest(text, boolean, timestamptz, timestamptz, timestamptz, text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION user_ids_newest(text, boolean, timestamptz, timestamptz, timestamptz, text, bigint)
    TO ops_grafana, ops_staff;

-- function: order_item_ids
-- From an order to its items. The application has no index for it (see `advice` above), so this reads the table once, a
-- tenth of a second per million rows; for people, not for a refreshing panel.
CREATE FUNCTION order_item_ids(of_order text) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER ROWS 3 SET search_path = pg_catalog, pg_temp AS $$
    SELECT id FROM public.order_items WHERE "orderId" = of_order::uuid
$$;
REVOKE ALL ON FUNCTION order_item_ids(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION order_item_ids(text) TO ops_grafana, ops_staff;

-- function: order_email
-- The whole address. Only for ops_super, and whoever calls it for a person leaves an audit event first.
CREATE FUNCTION order_email(of_order text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT email FROM public.orders WHERE id = of_order::uuid
$$;
REVOKE ALL ON FUNCTION order_email(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION order_email(text) TO ops_super;

-- function: user_email
CREATE FUNCTION user_email(of_user text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT email FROM public.users WHERE id = of_user::uuid
$$;
REVOKE ALL ON FUNCTION user_email(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION user_email(text) TO ops_super;

-- view: orders
-- totalCrypto is in truth the total in EUR.
CREATE VIEW orders AS
SELECT
    o.id,
    mask_email(o.email) AS email_masked,
    o."userId" AS user_id,
    o.status,
    o."sourceType"::text AS source_type,
    o."totalCrypto" AS total_eur,
    o."kinguinReservationId" AS reservation_id,
    o."completionEmailSent" AS completion_email_sent,
    o."createdAt" AT TIME ZONE 'UTC' AS created_at,
    o."updatedAt" AT TIME ZONE 'UTC' AS updated_at,
    o."createdAt" AS created_at_utc
FROM public.orders o;

-- view: order_items
-- Found by their ids: see order_item_ids.
CREATE VIEW order_items AS
SELECT
    i.id,
    i."orderId" AS order_id,
    i."productId" AS product_id,
    i.quantity,
    i."unitPrice" AS unit_price,
    i."productSourceType"::text AS source_type,
    i."createdAt" AT TIME ZONE 'UTC' AS created_at
FROM public.order_items i;

-- view: payments
CREATE VIEW payments AS
SELECT
    p.id,
    p."orderId" AS order_id,
    p."externalId" AS external_id,
    p.provider,
    p.status::text AS status,
    p.status AS status_native,
    p."priceAmount" AS price_amount,
    p."priceCurrency" AS price_currency,
    p."payAmount" AS pay_amount,
    p."payCurrency" AS pay_currency,
    p.confirmations,
    p."createdAt" AT TIME ZONE 'UTC' AS created_at,
    p."updatedAt" AT TIME ZONE 'UTC' AS updated_at,
    p."createdAt" AS created_at_utc
FROM public.payments p;

-- view: webhook_events
-- What a row says now, in one outcome of four. An IPN is inserted before it is checked and updated within seconds, so
-- `signatureValid = false` alone does not mean invalid: in flight, and for ever if a duplicate was dropped, it says
-- "Processing". `final` is false while the row's content leaves it open, `settled` once that has lasted a minute.
-- Kinguin rows are written only when accepted, some of them never marked processed. Of the payload, which strangers
-- write, only the claimed status is shown, and only one we know.
CREATE VIEW webhook_events AS
SELECT
    w.id,
    d.provider,
    w."webhookType" AS event_type,
    w."externalId" AS external_id,
    w."orderId" AS order_id,
    w."paymentId" AS payment_id,
    -- A product update keeps a time in this column.
    CASE WHEN w."webhookType" <> 'kinguin_product_update' THEN w."paymentStatus" END AS payment_status,
    CASE WHEN d.provider <> 'nowpayments' OR d.claimed IS NULL THEN NULL
        WHEN d.claimed IN (
            'waiting', 'confirming', 'confirmed', 'sending', 'partially_paid', 'underpaid', 'finished', 'failed',
            'refunded', 'expired'
        ) THEN d.claimed
        ELSE 'unknown' END AS claimed_status,
    w.processed,
    w."signatureValid" AS signature_valid,
    CASE
        WHEN d.provider = 'kinguin' OR (w."signatureValid" AND w.processed) THEN 'ok'
        WHEN w."signatureValid" THEN 'error'
        WHEN d.said = 'Invalid webhook signature' THEN 'invalid'
        WHEN w.error ILIKE '%signature%' THEN 'invalid' -- the legacy route puts it in its own words
        WHEN d.said IS NULL AND w.result ->> 'message' = 'Processing' THEN 'duplicate'
        ELSE 'error' -- refused with another text, or its handler died before it wrote anything
    END AS outcome,
    d.final,
    d.final OR w."createdAt" < (now() AT TIME ZONE 'UTC') - interval '1 minute' AS settled,
    mask_text(d.said) AS error,
    w."attemptCount" AS attempt_count,
    w."createdAt" AT TIME ZONE 'UTC' AS occurred_at,
    w."updatedAt" AT TIME ZONE 'UTC' AS updated_at,
    w."createdAt" AS created_at_utc
FROM public.webhook_logs w
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN w."webhookType" LIKE 'kinguin%' THEN 'kinguin'
            WHEN w."webhookType" LIKE 'nowpayments%' THEN 'nowpayments'
            ELSE 'other' END AS provider,
        w.payload ->> 'payment_status' AS claimed,
        coalesce(w.error, w.result ->> 'error') AS said,
        w."webhookType" LIKE 'kinguin%' OR (w."signatureValid" AND w.processed)
            OR w.error IS NOT NULL OR w.result ->> 'error' IS NOT NULL AS final
) d;

-- view: reservations
-- The two places a reservation lives. A sold inventory row keeps its reservedAt and reservedForOrderId: only the state
-- tells. An order keeps Kinguin's reservation id for ever; it counts as sold once the order is fulfilled. Kinguin notes no
-- time: the order's own is the earliest it can have been. What Kinguin charged stands nowhere, so it has no cost.
CREATE VIEW reservations AS
SELECT
    o.id AS order_id,
    'kinguin' AS place,
    o."kinguinReservationId"::text AS reservation_id,
    CASE WHEN o.status = 'fulfilled' THEN 'sold' ELSE 'reserved' END AS state,
    o."createdAt" AT TIME ZONE 'UTC' AS reserved_at,
    o."createdAt" AS reserved_at_utc,
    o.status AS order_status,
    NULL::numeric AS cost_eur
FROM public.orders o
WHERE o."kinguinReservationId" IS NOT NULL
UNION ALL
SELECT
    i."reservedForOrderId",
    'inventory',
    i.id::text,
    i.status::text,
    i."reservedAt",
    i."reservedAt" AT TIME ZONE 'UTC',
    o.status,
    i.cost::numeric
FROM public.product_inventory i
LEFT JOIN public.orders o ON o.id = i."reservedForOrderId"
WHERE i."reservedForOrderId" IS NOT NULL;

-- view: deliveries
-- LEFT JOIN: a reader that does not ask for the order does not pay for the join.
CREATE VIEW deliveries AS
SELECT
    k.id,
    k."orderItemId" AS order_item_id,
    i."orderId" AS order_id,
    k."createdAt" AT TIME ZONE 'UTC' AS created_at,
    k."createdAt" AS created_at_utc,
    k."viewedAt" AT TIME ZONE 'UTC' AS viewed_at,
    k."downloadCount" AS download_count
FROM public.keys k
LEFT JOIN public.order_items i ON i.id = k."orderItemId";

-- view: email_events
CREATE VIEW email_events AS
SELECT
    b.id,
    b.type::text AS type,
    b.type AS type_native,
    mask_email(b.email) AS email_masked,
    mask_text(b.reason) AS reason,
    b."bouncedAt" AT TIME ZONE 'UTC' AS occurred_at,
    b."bouncedAt" AS bounced_at_utc,
    b."createdAt" AS created_at_utc
FROM public.email_bounces b;

-- view: flags
-- A running application keeps flags in memory: this is what it will read next, not always what it does now.
CREATE VIEW flags AS
SELECT
    f.name,
    f.enabled,
    f.description,
    f.category,
    f."updatedAt" AS updated_at,
    f."updatedById" AS updated_by_id
FROM public.feature_flags f;

-- view: users
CREATE VIEW users AS
SELECT
    u.id,
    mask_email(u.email) AS email_masked,
    u.role::text AS role,
    u."emailConfirmed" AS email_confirmed,
    u."isSuspended" AS suspended,
    u."lastLoginAt" AS last_login_at,
    u."deletionRequestedAt" AS deletion_requested_at,
    u."deletedAt" AT TIME ZONE 'UTC' AS deleted_at,
    u."createdAt" AT TIME ZONE 'UTC' AS created_at,
    u."createdAt" AS created_at_utc
FROM public.users u;

-- view: sessions
-- No token hash, network address or browser.
CREATE VIEW sessions AS
SELECT
    s.id,
    s."userId" AS user_id,
    s."isRevoked" AS revoked,
    s."expiresAt" AS expires_at,
    s."lastActiveAt" AS last_active_at,
    s."createdAt" AS created_at
FROM public.user_sessions s;

-- view: report_subscribers
-- Who asked for the weekly summary. BitLoot asks nobody: here it is the setting OPS_WEEKLY_SUBSCRIBERS that names them.
CREATE VIEW report_subscribers AS
SELECT u.id AS user_id FROM public.users u WHERE false;

-- view: app_audit
-- Never payload or details: of `admin.products.inventory.create` they hold product keys in plain text.
CREATE VIEW app_audit AS
SELECT
    a.id,
    a."adminUserId" AS admin_user_id,
    a.action,
    mask_text(a.target) AS target,
    a."createdAt" AT TIME ZONE 'UTC' AS created_at,
    a."createdAt" AS created_at_utc
FROM public.audit_logs a;

-- write: purge_sessions
-- Expired sessions, the oldest first, at most so many (10,000) a call. One somebody else has locked waits for the next.
CREATE FUNCTION purge_sessions(batch integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH gone AS (
        DELETE FROM public.user_sessions WHERE id IN (
            SELECT s.id FROM public.user_sessions s WHERE s."expiresAt" < now()
            ORDER BY s."expiresAt" LIMIT least(greatest(coalesce(batch, 0), 0), 10000) FOR UPDATE SKIP LOCKED
        ) RETURNING 1
    )
    SELECT count(*) FROM gone
$$;
REVOKE ALL ON FUNCTION purge_sessions(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION purge_sessions(integer) TO ops_jobs;

-- write: webhook_log_lines
-- Changes nothing: it shows whole rows, payload and signature included, which no view does, to the one who archives
-- them. A page of the rows of one day that lie after a place (NULL: from the start), in the order of their index; each
-- as a line of JSON with its place, for the next page. Only of days at least 8 days old, as below.
CREATE FUNCTION webhook_log_lines(day date, after text, batch integer) RETURNS TABLE (place text, line text)
LANGUAGE sql STABLE SECURITY DEFINER ROWS 1000
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET extra_float_digits = 1 AS $$
    WITH RECURSIVE hop (value) AS (
        (SELECT "webhookType" FROM public.webhook_logs ORDER BY "webhookType" LIMIT 1)
        UNION ALL
        SELECT (SELECT w."webhookType" FROM public.webhook_logs w
                WHERE w."webhookType" > hop.value ORDER BY w."webhookType" LIMIT 1)
        FROM hop WHERE hop.value IS NOT NULL
    ), start AS (
        SELECT greatest(day::timestamp, split_part(after, '/', 1)::timestamp) AS at,
               coalesce(split_part(after, '/', 2)::uuid, '00000000-0000-0000-0000-000000000000'::uuid) AS id
    ), page AS (
        SELECT found.*
        FROM start
        CROSS JOIN hop
        CROSS JOIN (VALUES (true), (false)) AS p (processed)
        CROSS JOIN LATERAL (
            SELECT w.* FROM public.webhook_logs w
            WHERE w."webhookType" = hop.value AND w.processed = p.processed
              AND w."createdAt" >= start.at AND w."createdAt" < (day + 1)::timestamp
              AND (w."createdAt", w.id) > (start.at, start.id)
            ORDER BY w."createdAt", w.id LIMIT least(batch, 10000)
        ) found
        WHERE day <= (now() AT TIME ZONE 'UTC')::date - 8
        ORDER BY found."createdAt", found.id LIMIT least(batch, 10000)
    )
    SELECT page."createdAt"::text || '/' || page.id, to_jsonb(page)::text FROM page ORDER BY page."createdAt", page.id
$$;
REVOKE ALL ON FUNCTION webhook_log_lines(date, text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION webhook_log_lines(date, text, integer) TO ops_jobs;

-- write: purge_webhook_logs
-- Deletes those rows of one day that are, byte for byte, one of these lines: what was read back from an archive is what
-- goes, and a row that changed since stays. Never a row of the last 8 days: the ledger and the facts still read those.
CREATE FUNCTION purge_webhook_logs(day date, lines text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET extra_float_digits = 1 AS $$
DECLARE
    purged bigint;
BEGIN
    IF day > (now() AT TIME ZONE 'UTC')::date - 8 THEN
        RAISE EXCEPTION 'purge_webhook_logs: % is younger than 8 days', day USING ERRCODE = '22023';
    END IF;
    DELETE FROM public.webhook_logs w
    USING (SELECT (given.line::jsonb ->> 'id')::uuid AS id, given.line FROM unnest(lines) AS given (line)) archived
    WHERE w.id = archived.id AND to_jsonb(w)::text = archived.line
      AND w."createdAt" >= day::timestamp AND w."createdAt" < (day + 1)::timestamp;
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END $$;
REVOKE ALL ON FUNCTION purge_webhook_logs(date, text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION purge_webhook_logs(date, text[]) TO ops_jobs;

-- write: set_flag
-- The last resort where the admin API is not used: a running application does not see it before its next start. Nobody's
-- id stands behind it, so none is left there. True if there is such a flag.
CREATE FUNCTION set_flag(flag text, wanted boolean) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH changed AS (
        UPDATE public.feature_flags SET enabled = wanted, "updatedAt" = now(), "updatedById" = NULL
        WHERE name = flag AND enabled IS DISTINCT FROM wanted
    )
    SELECT EXISTS (SELECT FROM public.feature_flags WHERE name = flag)
$$;
REVOKE ALL ON FUNCTION set_flag(text, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION set_flag(text, boolean) TO ops_jobs, ops_staff;

-- write: delete_flag
-- A flag the code no longer asks for; a running application may still remember it. True if there was one.
CREATE FUNCTION delete_flag(flag text) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH gone AS (DELETE FROM public.feature_flags WHERE name = flag RETURNING 1) SELECT EXISTS (SELECT FROM gone)
$$;
REVOKE ALL ON FUNCTION delete_flag(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION delete_flag(text) TO ops_super;

-- grants: readers
GRANT USAGE ON SCHEMA ops_view TO ops_exporter, ops_grafana, ops_jobs, ops_staff;
GRANT USAGE ON SCHEMA ops_app TO ops_jobs, ops_staff; -- what may be called there, each function says
GRANT SELECT ON ALL TABLES IN SCHEMA ops_view TO ops_exporter, ops_grafana, ops_jobs, ops_staff;

-- values: orders.status
-- known: created waiting confirming paid fulfilled underpaid expired failed refunded cancelled
-- Hops along (status, createdAt): as many index look-ups as there are statuses, whatever the number of orders.
WITH RECURSIVE hop (value) AS (
    (SELECT status FROM public.orders ORDER BY status LIMIT 1)
    UNION ALL
    SELECT (SELECT o.status FROM public.orders o WHERE o.status > hop.value ORDER BY o.status LIMIT 1)
    FROM hop WHERE hop.value IS NOT NULL
)
SELECT value FROM hop WHERE value IS NOT NULL;

-- values: webhook_events.event_type
-- known: nowpayments_ipn kinguin_order_status kinguin_product_update
-- Hops along (webhookType, processed, createdAt).
WITH RECURSIVE hop (value) AS (
    (SELECT "webhookType" FROM public.webhook_logs ORDER BY "webhookType" LIMIT 1)
    UNION ALL
    SELECT (SELECT w."webhookType" FROM public.webhook_logs w
            WHERE w."webhookType" > hop.value ORDER BY w."webhookType" LIMIT 1)
    FROM hop WHERE hop.value IS NOT NULL
)
SELECT value FROM hop WHERE value IS NOT NULL;

-- values: webhook_events.payment_status
-- known: waiting confirming confirmed sending partially_paid underpaid finished failed refunded expired
-- No index leads with it: the newest IPNs, processed and not (a status unknown to the application is never processed).
SELECT DISTINCT newest.value
FROM (VALUES (true), (false)) AS p (processed)
CROSS JOIN LATERAL (
    SELECT w."paymentStatus" AS value FROM public.webhook_logs w
    WHERE w."webhookType" = 'nowpayments_ipn' AND w.processed = p.processed
    ORDER BY w."createdAt" DESC LIMIT 2000
) newest
WHERE newest.value IS NOT NULL;

-- values: payments.status
-- known: created waiting confirmed finished underpaid failed
-- Every label of the enum, used or not; found by its column, because the type's name is the ORM's choice.
SELECT e.enumlabel::text AS value FROM pg_enum e
JOIN pg_attribute a ON a.atttypid = e.enumtypid
WHERE a.attrelid = 'public.payments'::regclass AND a.attname = 'status';

-- values: email_events.type
-- known: hard soft complaint
SELECT e.enumlabel::text AS value FROM pg_enum e
JOIN pg_attribute a ON a.atttypid = e.enumtypid
WHERE a.attrelid = 'public.email_bounces'::regclass AND a.attname = 'type';
