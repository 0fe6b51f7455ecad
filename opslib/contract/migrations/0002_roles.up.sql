-- Who may do what is decided by the database. These are groups without login: an exporter, Grafana, a person logs in
-- under a role of their own that is a member (`CREATE ROLE grafana LOGIN IN ROLE ops_grafana`).
--
-- Roles belong to the whole cluster: another database of it may have made them, or be making them right now.
-- This file also runs on the application's server when that is another one (`opsctl contract apply`), so it makes
-- roles and nothing else; what they may do here is 0003's, what they may read there is the adapter's.
DO $$
DECLARE
    role_name text;
    member record;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['ops_exporter', 'ops_grafana', 'ops_jobs', 'ops_backup', 'ops_staff', 'ops_super']
    LOOP
        IF to_regrole(role_name) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- made by somebody else this very moment
            END;
        END IF;
    END LOOP;

    -- A backup reads everything, whatever tables the application adds; super may all that staff may.
    FOR member IN SELECT * FROM (VALUES ('pg_read_all_data', 'ops_backup'), ('ops_staff', 'ops_super')) AS m (granted, grantee)
    LOOP
        IF NOT pg_has_role(member.grantee, member.granted, 'MEMBER') THEN
            BEGIN
                EXECUTE format('GRANT %I TO %I', member.granted, member.grantee);
            EXCEPTION WHEN unique_violation THEN
                NULL;
            END;
        END IF;
    END LOOP;
END $$;
