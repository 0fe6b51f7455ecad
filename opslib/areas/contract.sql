-- name: contract_columns
-- database: app
-- Every column of our live views with its type, from the catalog alone: compared with opslib/contract/canonical.py.
SELECT c.relname::text AS view, a.attname::text AS column, format_type(a.atttypid, NULL) AS type
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = to_regnamespace('ops_view') AND c.relkind = 'v';
