-- name: checkpoints
-- database: ops
-- Every exporter's checkpoint: who saved it, when, how many series, and whether an exporter holds its name right now.
SELECT c.exporter, c.owner, c.epoch, c.saved_at,
       greatest(extract(epoch FROM clock_timestamp() - c.saved_at), 0)::float8 AS age_seconds,
       (SELECT count(*) FROM ops.exporter_series s WHERE s.exporter = c.exporter) AS series,
       EXISTS (
           SELECT FROM pg_catalog.pg_locks l
           WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
             AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
             AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('ops.exporter:' || c.exporter, 0)
       ) AS held
FROM ops.exporter_checkpoints c
ORDER BY c.exporter;

-- name: ledger_families
-- database: ops
-- Every family of the ledger: from when on rows are remembered one by one, where the back-fill of the older ones stands
-- (NULL before its first slice), how many rows are remembered, and what was counted in all.
SELECT m.family, m.low_water, m.read_from, m.missed, nullif(m.backfill_from, '-infinity') AS backfill_from, m.backfilled_at,
       (SELECT count(*) FROM ops.ledger_seen s WHERE s.family = m.family) AS seen,
       (SELECT coalesce(sum(t.events), 0)::bigint FROM ops.ledger_totals t WHERE t.family = m.family) AS events,
       (SELECT coalesce(sum(r.events), 0)::bigint FROM ops.ledger_reclassified r
        WHERE r.family = m.family) AS reclassified
FROM ops.ledger_marks m
ORDER BY m.family;
