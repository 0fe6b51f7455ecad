-- Roles belong to the whole cluster: all of them stay as long as another database (or the contract's views here) grants
-- one of them anything, or a login is a member of one. Dropping that one would take somebody's rights in silence, and
-- dropping the others would leave the other database with half a set.
DO $$
DECLARE
    -- ops_super before ops_staff, whose member it is.
    ours constant text[] := ARRAY['ops_super', 'ops_staff', 'ops_backup', 'ops_jobs', 'ops_grafana', 'ops_exporter'];
    role_name text;
BEGIN
    -- An ADMIN membership is what PostgreSQL 16 gives a role's creator by itself.
    IF EXISTS (
        SELECT FROM pg_auth_members m JOIN pg_roles granted ON granted.oid = m.roleid JOIN pg_roles u ON u.oid = m.member
        WHERE granted.rolname = ANY (ours) AND u.rolname <> ALL (ours) AND NOT m.admin_option
    ) THEN
        RETURN;
    END IF;
    FOREACH role_name IN ARRAY ours LOOP
        EXECUTE format('DROP ROLE IF EXISTS %I', role_name);
    END LOOP;
EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
    NULL; -- still used, or made by somebody who may create roles when we may not; what was dropped above is back
END $$;
