-- name: weekly_subscribers
-- database: app
-- Of the users with these ids and those the application itself names: who may be written to.
SELECT u.id::text AS id
FROM (
    SELECT named.id FROM ops_view.users named WHERE named.id = ANY (%(ids)s)
    UNION
    SELECT s.user_id FROM ops_view.report_subscribers s
) asked
JOIN ops_view.users u ON u.id = asked.id
WHERE u.email_confirmed AND NOT u.suspended AND u.deleted_at IS NULL AND u.deletion_requested_at IS NULL
ORDER BY 1;
