-- Roles belong to the whole cluster. One stays when another database (or the contract's views here) still grants it
-- something, or when a login is a member of it: dropping it would take that person's rights in silence.
DO $$
DECLARE
    role_name text;
BEGIN
    -- ops_super before ops_staff, whose member it is.
    FOREACH role_name IN ARRAY ARRAY['ops_super', 'ops_staff', 'ops_backup', 'ops_jobs', 'ops_grafana', 'ops_exporter']
    LOOP
        -- An ADMIN membership is what PostgreSQL 16 gives a role's creator by itself.
        CONTINUE WHEN to_regrole(role_name) IS NULL OR EXISTS (
            SELECT FROM pg_auth_members WHERE roleid = to_regrole(role_name) AND NOT admin_option
        );
        BEGIN
            EXECUTE format('DROP ROLE %I', role_name);
        EXCEPTION WHEN dependent_objects_still_exist OR undefined_object THEN
            NULL; -- in use elsewhere, or dropped by somebody else this very moment
        END;
    END LOOP;
END $$;
