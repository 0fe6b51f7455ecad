-- name: flags_live
-- database: app
-- The application's own flags, and who changed each last and when, as far as its row says.
SELECT f.name AS key, f.enabled, f.updated_at AS changed_at,
       coalesce(u.email_masked, f.updated_by_id::text) AS changed_by
FROM ops_view.flags f
LEFT JOIN ops_view.users u ON u.id = f.updated_by_id
ORDER BY f.name;

-- name: flag_states
-- database: ops
-- Each flag as flag-sync last left it.
SELECT key, state, wanted, live, applied, applied_at, changed_by, changed_at, expires_on
FROM ops.flag_states ORDER BY key;

-- name: flag_overrides
-- database: ops
-- What holds instead of the file, and until when.
SELECT key, value, until, set_by, set_at, reason FROM ops.flag_overrides ORDER BY key;

-- name: flag_sync
-- database: ops
-- When flag-sync last tried, when it last went through, and what is wrong with the file.
SELECT tried_at, synced_at, checksum, errors FROM ops.flag_syncs;
