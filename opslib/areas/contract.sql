-- name: contract_columns
-- database: app
-- Every column of our live views with its type, from the catalog alone: compared with opslib/contract/canonical.py.
SELECT c.relname::text AS view, a.attname::text AS column, format_type(a.atttypid, NULL) AS type
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = to_regnamespace('ops_view') AND c.relkind = 'v';

-- name: contract_indexes
-- database: app
-- Every plain index of some of the application's tables, from the catalog alone: its columns in order, whether it can be
-- used, and whether it is being built (as far as the reader may see that).
SELECT t.relname::text AS table, i.relname::text AS name, x.indisvalid AND x.indisready AS valid,
       ARRAY(SELECT a.attname::text FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS k (attnum, n)
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum
             WHERE k.n <= x.indnkeyatts ORDER BY k.n) AS columns,
       EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = i.oid) AS building
FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_class t ON t.oid = x.indrelid
JOIN pg_catalog.pg_am m ON m.oid = i.relam
WHERE t.relnamespace = to_regnamespace('public') AND t.relname = ANY (%(tables)s::text[])
  AND m.amname = 'btree' AND x.indpred IS NULL
ORDER BY 1, 2;
