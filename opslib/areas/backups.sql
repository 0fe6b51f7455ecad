-- name: backup_checks_last
-- database: ops
-- The last check of each kind of each backup.
SELECT DISTINCT ON (key, kind) key, kind, ok, sha256, bytes, seconds, error, checked_at
FROM ops.backup_checks ORDER BY key, kind, checked_at DESC, id DESC;
