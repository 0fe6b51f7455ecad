-- The history of runs is gone after this, and whatever waited in the queue.
DROP VIEW ops_view.job_runs;
DO $$
DECLARE
    f regprocedure;
BEGIN
    -- Schema ops_view stays while the contract has something in it.
    IF NOT EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'ops_view'::regnamespace) THEN
        DROP SCHEMA ops_view;
    END IF;
    DROP TABLE ops.procrastinate_events, ops.procrastinate_periodic_defers CASCADE;
    FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'ops'::regnamespace
             AND (p.proname LIKE 'procrastinate\_%' OR p.proname LIKE 'job\_%') LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', f);
    END LOOP;
END $$;
DROP TABLE ops.job_attempts, ops.job_runs, ops.job_slots, ops.job_counts, ops.job_totals, ops.job_workers, ops.jobs,
    ops.procrastinate_jobs, ops.procrastinate_workers;
DROP TYPE ops.procrastinate_job_to_defer_v1, ops.procrastinate_job_event_type, ops.procrastinate_job_status;
REVOKE ALL ON SCHEMA ops FROM ops_jobs;
