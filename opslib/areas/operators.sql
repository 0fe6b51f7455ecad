-- name: operators
-- database: ops
-- Everybody who is or was an operator, and every login that became a member of ops_staff or ops_super otherwise.
WITH members AS (
    SELECT u.rolname::text AS name, max(CASE g.rolname WHEN 'ops_super' THEN 'super' ELSE 'staff' END) AS role
    FROM pg_catalog.pg_auth_members m
    JOIN pg_catalog.pg_roles g ON g.oid = m.roleid AND g.rolname IN ('ops_staff', 'ops_super')
    JOIN pg_catalog.pg_roles u ON u.oid = m.member AND u.rolcanlogin
    GROUP BY 1
)
SELECT coalesce(o.name, m.name) AS name, coalesce(m.role, o.role) AS role,
       CASE WHEN o.name IS NULL THEN 'by hand' WHEN m.name IS NOT NULL THEN 'active' ELSE 'disabled' END AS state,
       o.added_at, o.added_by, o.disabled_at, o.disabled_by,
       (SELECT e.at FROM ops.audit_events e WHERE e.who = coalesce(o.name, m.name) ORDER BY e.seq DESC LIMIT 1)
           AS last_action_at
FROM ops.operators o FULL JOIN members m ON m.name = o.name
ORDER BY 1;

-- name: whoami
-- database: ops
-- The login of this session, and what it may.
SELECT session_user::text AS login, ops.operator_role() AS role, current_database()::text AS database,
       coalesce(host(inet_server_addr()), 'local socket') AS server;
