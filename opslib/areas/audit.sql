-- name: audit_events
-- database: ops
-- What was done and refused, newest first; each filter may be null. An action's name, or the area before its dot.
SELECT e.seq, e.at, e.who, e.role, e.host, e.address, e.event, e.action, e.target, e.payload, e.reason, e.outcome, e.error,
       e.intent, e.duration_ms, encode(e.hash, 'hex') AS hash
FROM ops.audit_events e
WHERE (%(who)s::text IS NULL OR e.who = %(who)s)
  AND (%(action)s::text IS NULL OR e.action = %(action)s OR starts_with(e.action, %(action)s || '.'))
  AND (%(target)s::text IS NULL OR e.target = %(target)s)
  AND (%(outcome)s::text IS NULL OR e.outcome = %(outcome)s)
  AND (%(from)s::timestamptz IS NULL OR e.at >= %(from)s)
  AND (%(to)s::timestamptz IS NULL OR e.at < %(to)s)
  AND (%(before)s::bigint IS NULL OR e.seq < %(before)s)
  AND (NOT %(unfinished)s OR e.seq IN (SELECT o.seq FROM ops.audit_open o))
ORDER BY e.seq DESC LIMIT %(limit)s;

-- name: audit_event
-- database: ops
-- One event; where it is an intent or an outcome, the other half too.
SELECT e.seq, e.at, e.who, e.role, e.host, e.address, e.event, e.action, e.target, e.payload, e.reason, e.outcome, e.error,
       e.intent, e.duration_ms, encode(e.hash, 'hex') AS hash
FROM ops.audit_events e
WHERE e.seq = %(before)s OR e.intent = %(before)s
   OR e.seq = (SELECT i.intent FROM ops.audit_events i WHERE i.seq = %(before)s)
ORDER BY e.seq;

-- name: audit_totals
-- database: ops
-- Events by action and outcome, ever, and when the last one was.
SELECT action, outcome, events, last_at FROM ops.audit_totals ORDER BY action, outcome;

-- name: audit_state
-- database: ops
-- The chain's length; intents open for more than `settle`, and the age of the oldest of them.
SELECT (SELECT h.seq FROM ops.audit_head h) AS events,
       (SELECT count(*) FROM ops.audit_open o WHERE o.at < clock_timestamp() - %(settle)s::interval) AS unfinished,
       (SELECT extract(epoch FROM clock_timestamp() - min(o.at))::double precision
        FROM ops.audit_open o WHERE o.at < clock_timestamp() - %(settle)s::interval) AS oldest_seconds;
