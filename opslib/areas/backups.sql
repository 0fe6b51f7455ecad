-- name: backup_checks_last
-- database: ops
-- The last check of each kind of each backup.
SELECT DISTINCT ON (key, kind) key, kind, ok, sha256, bytes, seconds, error, checked_at
FROM ops.backup_checks ORDER BY key, kind, checked_at DESC, id DESC;

-- name: backup_unfinished
-- database: ops
-- Manifests of backups whose run ended before it put them into the bucket.
SELECT key, bytes, manifest FROM ops.backup_unfinished ORDER BY begun_at;

-- name: backup_runs
-- database: ops
-- What runs of backup-database say: the key the last successful one wrote, and since when the oldest unfinished one runs.
SELECT (SELECT r.result ->> 'key' FROM ops_view.job_runs r WHERE r.job = 'backup-database' AND r.outcome = 'SUCCESS'
        ORDER BY r.id DESC LIMIT 1) AS newest,
       (SELECT min(r.started) FROM ops_view.job_runs r WHERE r.job = 'backup-database' AND r.outcome IS NULL) AS running_since;
