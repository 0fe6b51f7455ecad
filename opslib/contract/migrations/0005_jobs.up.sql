-- Jobs: what is declared, when it was due, what ran, and who may say how it ended.
--
-- Everything that changes a row is one of the functions below, run as the owner (SECURITY DEFINER): a worker, a
-- scheduler and an operator log in as members of ops_jobs or ops_staff and write no table. Whatever must happen together
-- (a slot and its run, a run taken and its attempt, an outcome and its count) happens in one call, so a reply that was
-- lost or a process killed in between leaves nothing half done.
--
-- Lock order, everywhere: a job's row, then one run, then its attempt, then totals and counts. No function holds two runs.

SET LOCAL search_path = ops, pg_temp;

-- procrastinate 3.10: a durable queue with priorities and times ahead -------------------------------------------------
-- The schema of https://github.com/procrastinate-org/procrastinate, MIT licence, Copyright (c) 2019 PeopleDoc and others,
-- as its package ships it (a test compares), but for a CREATE EXTENSION plpgsql. Why its worker is not used:
-- docs/decisions/0005-jobs.md. A newer one is a migration of ours.

-- Enums

CREATE TYPE procrastinate_job_status AS ENUM (
    'todo',  -- The job is queued
    'doing',  -- The job has been fetched by a worker
    'succeeded',  -- The job ended successfully
    'failed',  -- The job ended with an error
    'cancelled', -- The job was cancelled
    'aborting',  -- legacy, not used anymore since v3.0.0
    'aborted'  -- The job was aborted
);

CREATE TYPE procrastinate_job_event_type AS ENUM (
    'deferred',  -- Job created, in todo
    'started',  -- todo -> doing
    'deferred_for_retry',  -- doing -> todo
    'failed',  -- doing -> failed
    'succeeded',  -- doing -> succeeded
    'cancelled', -- todo -> cancelled
    'abort_requested', -- not a state transition, but set in a separate field
    'aborted', -- doing -> aborted (only allowed when abort_requested field is set)
    'scheduled', -- not a state transition, but recording when a task is scheduled for
    'retried' -- Manually retried failed job
);

-- Composite Types

CREATE TYPE procrastinate_job_to_defer_v1 AS (
    queue_name character varying,
    task_name character varying,
    priority integer,
    lock text,
    queueing_lock text,
    args jsonb,
    scheduled_at timestamp with time zone
);

-- Tables

CREATE TABLE procrastinate_workers(
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    last_heartbeat timestamp with time zone NOT NULL DEFAULT NOW()
);

CREATE TABLE procrastinate_jobs (
    id bigserial PRIMARY KEY,
    queue_name character varying(128) NOT NULL,
    task_name character varying(128) NOT NULL,
    priority integer DEFAULT 0 NOT NULL,
    lock text,
    queueing_lock text,
    args jsonb DEFAULT '{}' NOT NULL,
    status procrastinate_job_status DEFAULT 'todo'::procrastinate_job_status NOT NULL,
    scheduled_at timestamp with time zone NULL,
    attempts integer DEFAULT 0 NOT NULL,
    abort_requested boolean DEFAULT false NOT NULL,
    worker_id bigint REFERENCES procrastinate_workers(id) ON DELETE SET NULL,
    CONSTRAINT check_not_todo_abort_requested CHECK (NOT (status = 'todo' AND abort_requested = true))
);

CREATE TABLE procrastinate_periodic_defers (
    id bigserial PRIMARY KEY,
    task_name character varying(128) NOT NULL,
    defer_timestamp bigint,
    job_id bigint REFERENCES procrastinate_jobs(id) NULL,
    periodic_id character varying(128) NOT NULL DEFAULT '',
    CONSTRAINT procrastinate_periodic_defers_unique UNIQUE (task_name, periodic_id, defer_timestamp)
);

CREATE TABLE procrastinate_events (
    id bigserial PRIMARY KEY,
    job_id bigint NOT NULL REFERENCES procrastinate_jobs ON DELETE CASCADE,
    type procrastinate_job_event_type,
    at timestamp with time zone DEFAULT NOW() NULL
);

-- Constraints & Indices

-- this prevents from having several jobs with the same queueing lock in the "todo" state
CREATE UNIQUE INDEX procrastinate_jobs_queueing_lock_idx_v1 ON procrastinate_jobs (queueing_lock) WHERE status = 'todo';
-- this prevents from having several jobs with the same lock in the "doing" state
CREATE UNIQUE INDEX procrastinate_jobs_lock_idx_v1 ON procrastinate_jobs (lock) WHERE status = 'doing';

-- Index for select_stalled_jobs_by_heartbeat query
CREATE INDEX idx_procrastinate_jobs_worker_not_null ON procrastinate_jobs(worker_id) WHERE worker_id IS NOT NULL AND status = 'doing'::procrastinate_job_status;

CREATE INDEX procrastinate_jobs_queue_name_idx_v1 ON procrastinate_jobs(queue_name);
CREATE INDEX procrastinate_jobs_id_lock_idx_v1 ON procrastinate_jobs (id, lock) WHERE status = ANY (ARRAY['todo'::procrastinate_job_status, 'doing'::procrastinate_job_status]);
CREATE INDEX procrastinate_jobs_priority_idx_v1 ON procrastinate_jobs(priority desc, id asc) WHERE (status = 'todo'::procrastinate_job_status);

CREATE INDEX procrastinate_events_job_id_fkey_v1 ON procrastinate_events(job_id);

CREATE INDEX procrastinate_periodic_defers_job_id_fkey_v1 ON procrastinate_periodic_defers(job_id);

CREATE INDEX idx_procrastinate_workers_last_heartbeat ON procrastinate_workers(last_heartbeat);

-- Functions
CREATE FUNCTION procrastinate_defer_jobs_v1(
    jobs procrastinate_job_to_defer_v1[]
)
    RETURNS bigint[]
    LANGUAGE plpgsql
AS $$
DECLARE
    job_ids bigint[];
BEGIN
    WITH inserted_jobs AS (
        INSERT INTO procrastinate_jobs (queue_name, task_name, priority, lock, queueing_lock, args, scheduled_at)
        SELECT (job).queue_name,
               (job).task_name,
               (job).priority,
               (job).lock,
               (job).queueing_lock,
               (job).args,
               (job).scheduled_at
        FROM unnest(jobs) AS job
        RETURNING id
    )
    SELECT array_agg(id) FROM inserted_jobs INTO job_ids;

    RETURN job_ids;
END;
$$;

CREATE FUNCTION procrastinate_defer_periodic_job_v2(
    _queue_name character varying,
    _lock character varying,
    _queueing_lock character varying,
    _task_name character varying,
    _priority integer,
    _periodic_id character varying,
    _defer_timestamp bigint,
    _args jsonb
)
    RETURNS bigint
    LANGUAGE plpgsql
AS $$
DECLARE
	_job_id bigint;
	_defer_id bigint;
BEGIN
    INSERT
        INTO procrastinate_periodic_defers (task_name, periodic_id, defer_timestamp)
        VALUES (_task_name, _periodic_id, _defer_timestamp)
        ON CONFLICT DO NOTHING
        RETURNING id into _defer_id;

    IF _defer_id IS NULL THEN
        RETURN NULL;
    END IF;

    UPDATE procrastinate_periodic_defers
        SET job_id = (
            SELECT COALESCE((
                SELECT unnest(procrastinate_defer_jobs_v1(
                    ARRAY[
                        ROW(
                            _queue_name,
                            _task_name,
                            _priority,
                            _lock,
                            _queueing_lock,
                            _args,
                            NULL::timestamptz
                        )
                    ]::procrastinate_job_to_defer_v1[]
                ))
            ), NULL)
        )
        WHERE id = _defer_id
        RETURNING job_id INTO _job_id;

    DELETE
        FROM procrastinate_periodic_defers
        USING (
            SELECT id
            FROM procrastinate_periodic_defers
            WHERE procrastinate_periodic_defers.task_name = _task_name
            AND procrastinate_periodic_defers.periodic_id = _periodic_id
            AND procrastinate_periodic_defers.defer_timestamp < _defer_timestamp
            ORDER BY id
            FOR UPDATE
        ) to_delete
        WHERE procrastinate_periodic_defers.id = to_delete.id;

    RETURN _job_id;
END;
$$;

CREATE FUNCTION procrastinate_fetch_job_v2(
    target_queue_names character varying[],
    p_worker_id bigint
)
    RETURNS procrastinate_jobs
    LANGUAGE plpgsql
AS $$
DECLARE
	found_jobs procrastinate_jobs;
BEGIN
    WITH candidate AS (
        SELECT jobs.*
            FROM procrastinate_jobs AS jobs
            WHERE
                -- reject the job if its lock has earlier or higher priority jobs
                NOT EXISTS (
                    SELECT 1
                        FROM procrastinate_jobs AS other_jobs
                        WHERE
                            jobs.lock IS NOT NULL
                            AND other_jobs.lock = jobs.lock
                            AND (
                                -- job with same lock is already running
                                other_jobs.status = 'doing'
                                OR
                                -- job with same lock is waiting and has higher priority (or same priority but was queued first)
                                (
                                    other_jobs.status = 'todo'
                                    AND (
                                        other_jobs.priority > jobs.priority
                                        OR (
                                        other_jobs.priority = jobs.priority
                                        AND other_jobs.id < jobs.id
                                        )
                                    )
                                )
                            )
                )
                AND jobs.status = 'todo'
                AND (target_queue_names IS NULL OR jobs.queue_name = ANY( target_queue_names ))
                AND (jobs.scheduled_at IS NULL OR jobs.scheduled_at <= now())
            ORDER BY jobs.priority DESC, jobs.id ASC LIMIT 1
            FOR UPDATE OF jobs SKIP LOCKED
    )
    UPDATE procrastinate_jobs
        SET status = 'doing', worker_id = p_worker_id
        FROM candidate
        WHERE procrastinate_jobs.id = candidate.id
        RETURNING procrastinate_jobs.* INTO found_jobs;

 RETURN found_jobs;
END;
$$;

CREATE FUNCTION procrastinate_finish_job_v1(job_id bigint, end_status procrastinate_job_status, delete_job boolean)
    RETURNS void
    LANGUAGE plpgsql
AS $$
DECLARE
    _job_id bigint;
BEGIN
    IF end_status NOT IN ('succeeded', 'failed', 'aborted') THEN
        RAISE 'End status should be either "succeeded", "failed" or "aborted" (job id: %)', job_id;
    END IF;
    IF delete_job THEN
        DELETE FROM procrastinate_jobs
        WHERE id = job_id AND status IN ('todo', 'doing')
        RETURNING id INTO _job_id;
    ELSE
        UPDATE procrastinate_jobs
        SET status = end_status,
            abort_requested = false,
            attempts = CASE status
                WHEN 'doing' THEN attempts + 1 ELSE attempts
            END
        WHERE id = job_id AND status IN ('todo', 'doing')
        RETURNING id INTO _job_id;
    END IF;
    IF _job_id IS NULL THEN
        RAISE 'Job was not found or not in "doing" or "todo" status (job id: %)', job_id;
    END IF;
END;
$$;

CREATE FUNCTION procrastinate_cancel_job_v1(job_id bigint, abort boolean, delete_job boolean)
    RETURNS bigint
    LANGUAGE plpgsql
AS $$
DECLARE
    _job_id bigint;
BEGIN
    IF delete_job THEN
        DELETE FROM procrastinate_jobs
        WHERE id = job_id AND status = 'todo'
        RETURNING id INTO _job_id;
    END IF;
    IF _job_id IS NULL THEN
        IF abort THEN
            UPDATE procrastinate_jobs
            SET abort_requested = true,
                status = CASE status
                    WHEN 'todo' THEN 'cancelled'::procrastinate_job_status ELSE status
                END
            WHERE id = job_id AND status IN ('todo', 'doing')
            RETURNING id INTO _job_id;
        ELSE
            UPDATE procrastinate_jobs
            SET status = 'cancelled'::procrastinate_job_status
            WHERE id = job_id AND status = 'todo'
            RETURNING id INTO _job_id;
        END IF;
    END IF;
    RETURN _job_id;
END;
$$;

CREATE FUNCTION procrastinate_retry_job_v1(
    job_id bigint,
    retry_at timestamp with time zone,
    new_priority integer,
    new_queue_name character varying,
    new_lock character varying
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _job_id bigint;
    _abort_requested boolean;
BEGIN
    SELECT abort_requested FROM procrastinate_jobs
    WHERE id = job_id AND status = 'doing'
    FOR UPDATE
    INTO _abort_requested;
    IF _abort_requested THEN
        UPDATE procrastinate_jobs
        SET status = 'failed'::procrastinate_job_status
        WHERE id = job_id AND status = 'doing'
        RETURNING id INTO _job_id;
    ELSE
        UPDATE procrastinate_jobs
        SET status = 'todo'::procrastinate_job_status,
            attempts = attempts + 1,
            scheduled_at = retry_at,
            priority = COALESCE(new_priority, priority),
            queue_name = COALESCE(new_queue_name, queue_name),
            lock = COALESCE(new_lock, lock)
        WHERE id = job_id AND status = 'doing'
        RETURNING id INTO _job_id;
    END IF;

    IF _job_id IS NULL THEN
        RAISE 'Job was not found or not in "doing" status (job id: %)', job_id;
    END IF;
END;
$$;

CREATE FUNCTION procrastinate_retry_job_v2(
    job_id bigint,
    retry_at timestamp with time zone,
    new_priority integer,
    new_queue_name character varying,
    new_lock character varying
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _job_id bigint;
    _abort_requested boolean;
    _current_status procrastinate_job_status;
BEGIN
    SELECT status, abort_requested FROM procrastinate_jobs
    WHERE id = job_id AND status IN ('doing', 'failed')
    FOR UPDATE
    INTO _current_status, _abort_requested;
    IF _current_status = 'doing' AND _abort_requested THEN
        UPDATE procrastinate_jobs
        SET status = 'failed'::procrastinate_job_status
        WHERE id = job_id AND status = 'doing'
        RETURNING id INTO _job_id;
    ELSE
        UPDATE procrastinate_jobs
        SET status = 'todo'::procrastinate_job_status,
            attempts = attempts + 1,
            scheduled_at = retry_at,
            priority = COALESCE(new_priority, priority),
            queue_name = COALESCE(new_queue_name, queue_name),
            lock = COALESCE(new_lock, lock)
        WHERE id = job_id AND status IN ('doing', 'failed')
        RETURNING id INTO _job_id;
    END IF;

    IF _job_id IS NULL THEN
        RAISE 'Job was not found or has an invalid status to retry (job id: %)', job_id;
    END IF;

END;
$$;

CREATE FUNCTION procrastinate_notify_queue_job_inserted_v1()
    RETURNS trigger
    LANGUAGE plpgsql
AS $$
DECLARE
    payload TEXT;
BEGIN
    SELECT json_build_object('type', 'job_inserted', 'job_id', NEW.id)::text INTO payload;
	PERFORM pg_notify('procrastinate_queue_v1#' || NEW.queue_name, payload);
	PERFORM pg_notify('procrastinate_any_queue_v1', payload);
	RETURN NEW;
END;
$$;

CREATE FUNCTION procrastinate_notify_queue_abort_job_v1()
RETURNS trigger
    LANGUAGE plpgsql
AS $$
DECLARE
    payload TEXT;
BEGIN
    SELECT json_build_object('type', 'abort_job_requested', 'job_id', NEW.id)::text INTO payload;
	PERFORM pg_notify('procrastinate_queue_v1#' || NEW.queue_name, payload);
	PERFORM pg_notify('procrastinate_any_queue_v1', payload);
	RETURN NEW;
END;
$$;

CREATE FUNCTION procrastinate_trigger_function_status_events_insert_v1()
    RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO procrastinate_events(job_id, type)
        VALUES (NEW.id, 'deferred'::procrastinate_job_event_type);
	RETURN NEW;
END;
$$;

CREATE FUNCTION procrastinate_trigger_function_status_events_update_v1()
    RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    WITH t AS (
        SELECT CASE
            WHEN OLD.status = 'todo'::procrastinate_job_status
                AND NEW.status = 'doing'::procrastinate_job_status
                THEN 'started'::procrastinate_job_event_type
            WHEN OLD.status = 'doing'::procrastinate_job_status
                AND NEW.status = 'todo'::procrastinate_job_status
                THEN 'deferred_for_retry'::procrastinate_job_event_type
            WHEN OLD.status = 'doing'::procrastinate_job_status
                AND NEW.status = 'failed'::procrastinate_job_status
                THEN 'failed'::procrastinate_job_event_type
            WHEN OLD.status = 'doing'::procrastinate_job_status
                AND NEW.status = 'succeeded'::procrastinate_job_status
                THEN 'succeeded'::procrastinate_job_event_type
            WHEN OLD.status = 'todo'::procrastinate_job_status
                AND (
                    NEW.status = 'cancelled'::procrastinate_job_status
                    OR NEW.status = 'failed'::procrastinate_job_status
                    OR NEW.status = 'succeeded'::procrastinate_job_status
                )
                THEN 'cancelled'::procrastinate_job_event_type
            WHEN OLD.status = 'doing'::procrastinate_job_status
                AND NEW.status = 'aborted'::procrastinate_job_status
                THEN 'aborted'::procrastinate_job_event_type
            WHEN OLD.status = 'failed'::procrastinate_job_status
                AND NEW.status = 'todo'::procrastinate_job_status
                THEN 'retried'::procrastinate_job_event_type
            ELSE NULL
        END as event_type
    )
    INSERT INTO procrastinate_events(job_id, type)
        SELECT NEW.id, t.event_type
        FROM t
        WHERE t.event_type IS NOT NULL;
	RETURN NEW;
END;
$$;

CREATE FUNCTION procrastinate_trigger_function_scheduled_events_v1()
    RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO procrastinate_events(job_id, type, at)
        VALUES (NEW.id, 'scheduled'::procrastinate_job_event_type, NEW.scheduled_at);

	RETURN NEW;
END;
$$;

CREATE FUNCTION procrastinate_trigger_abort_requested_events_procedure_v1()
    RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO procrastinate_events(job_id, type)
        VALUES (NEW.id, 'abort_requested'::procrastinate_job_event_type);
    RETURN NEW;
END;
$$;

CREATE FUNCTION procrastinate_unlink_periodic_defers_v1()
    RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE procrastinate_periodic_defers
    SET job_id = NULL
    WHERE job_id = OLD.id;
    RETURN OLD;
END;
$$;

CREATE FUNCTION procrastinate_register_worker_v1()
    RETURNS TABLE(worker_id bigint)
    LANGUAGE plpgsql
AS $$
BEGIN
    RETURN QUERY
    INSERT INTO procrastinate_workers DEFAULT VALUES
    RETURNING procrastinate_workers.id;
END;
$$;

CREATE FUNCTION procrastinate_unregister_worker_v1(worker_id bigint)
    RETURNS void
    LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM procrastinate_workers
    WHERE id = worker_id;
END;
$$;

CREATE FUNCTION procrastinate_update_heartbeat_v1(worker_id bigint)
    RETURNS void
    LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE procrastinate_workers
    SET last_heartbeat = NOW()
    WHERE id = worker_id;
END;
$$;

CREATE FUNCTION procrastinate_prune_stalled_workers_v1(seconds_since_heartbeat float)
    RETURNS TABLE(worker_id bigint)
    LANGUAGE plpgsql
AS $$
BEGIN
    RETURN QUERY
    DELETE FROM procrastinate_workers
    WHERE last_heartbeat < NOW() - (seconds_since_heartbeat || 'SECOND')::INTERVAL
    RETURNING procrastinate_workers.id;
END;
$$;

-- Triggers

CREATE TRIGGER procrastinate_jobs_notify_queue_job_inserted_v1
    AFTER INSERT ON procrastinate_jobs
    FOR EACH ROW WHEN ((new.status = 'todo'::procrastinate_job_status))
    EXECUTE PROCEDURE procrastinate_notify_queue_job_inserted_v1();

CREATE TRIGGER procrastinate_jobs_notify_queue_job_aborted_v1
    AFTER UPDATE OF abort_requested ON procrastinate_jobs
    FOR EACH ROW WHEN ((old.abort_requested = false AND new.abort_requested = true AND new.status = 'doing'::procrastinate_job_status))
    EXECUTE PROCEDURE procrastinate_notify_queue_abort_job_v1();

CREATE TRIGGER procrastinate_trigger_status_events_update_v1
    AFTER UPDATE OF status ON procrastinate_jobs
    FOR EACH ROW
    EXECUTE PROCEDURE procrastinate_trigger_function_status_events_update_v1();

CREATE TRIGGER procrastinate_trigger_status_events_insert_v1
    AFTER INSERT ON procrastinate_jobs
    FOR EACH ROW WHEN ((new.status = 'todo'::procrastinate_job_status))
    EXECUTE PROCEDURE procrastinate_trigger_function_status_events_insert_v1();

CREATE TRIGGER procrastinate_trigger_scheduled_events_v1
    AFTER UPDATE OR INSERT ON procrastinate_jobs
    FOR EACH ROW WHEN ((new.scheduled_at IS NOT NULL AND new.status = 'todo'::procrastinate_job_status))
    EXECUTE PROCEDURE procrastinate_trigger_function_scheduled_events_v1();

CREATE TRIGGER procrastinate_trigger_abort_requested_events_v1
    AFTER UPDATE OF abort_requested ON procrastinate_jobs
    FOR EACH ROW WHEN ((new.abort_requested = true))
    EXECUTE PROCEDURE procrastinate_trigger_abort_requested_events_procedure_v1();

CREATE TRIGGER procrastinate_trigger_delete_jobs_v1
    BEFORE DELETE ON procrastinate_jobs
    FOR EACH ROW EXECUTE PROCEDURE procrastinate_unlink_periodic_defers_v1();
-- End of procrastinate's schema.

CREATE TABLE ops.jobs (
    job             text PRIMARY KEY,
    title           text NOT NULL,
    queue           text NOT NULL,
    schedule        text,
    timeout_seconds double precision NOT NULL,
    max_age_seconds double precision,
    retries         integer NOT NULL,
    retry_seconds   double precision NOT NULL,
    catch_up        text NOT NULL,
    missing         text[] NOT NULL DEFAULT '{}',
    slots_from      timestamptz NOT NULL DEFAULT clock_timestamp(),
    declared_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    first_declared_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    declared_by     text NOT NULL,
    retired_at      timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE ops.jobs IS
    'The jobs the process last started declares; missing names settings without which one is not scheduled. Slots up to '
    'slots_from are over.';

CREATE TABLE ops.job_workers (
    worker       bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    node         text NOT NULL,
    queues       jsonb NOT NULL,
    scheduler    boolean NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON TABLE ops.job_workers IS 'Processes alive, as far as their heart-beat says. A silent one loses its row, then its attempts.';

CREATE TABLE ops.job_runs (
    id                     bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    job                    text NOT NULL,
    slot                   timestamptz,
    queue                  text NOT NULL,
    priority               integer NOT NULL,
    timeout_seconds        double precision NOT NULL,
    retries                integer NOT NULL,
    retry_seconds          double precision NOT NULL,
    foreground             boolean NOT NULL,
    params                 jsonb NOT NULL,
    params_shown           jsonb NOT NULL,
    triggered_by           text NOT NULL,
    queued_at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at                 timestamptz NOT NULL,
    delivery               bigint,
    attempt                bigint,
    attempts               integer NOT NULL DEFAULT 0,
    retry_at               timestamptz,
    started_at             timestamptz,
    finished_at            timestamptz,
    outcome                text CHECK (outcome IN ('SUCCESS', 'FAILED', 'CANCELLED')),
    cancel_requested_at    timestamptz,
    cancel_requested_by    text,
    cancel_acknowledged_at timestamptz,
    progress               jsonb,
    result                 jsonb,
    error                  text
) WITH (fillfactor = 70);
CREATE INDEX job_runs_unfinished ON ops.job_runs (id) WHERE outcome IS NULL;
CREATE INDEX job_runs_job ON ops.job_runs (job, id);
CREATE INDEX job_runs_outcome ON ops.job_runs (outcome, id);
CREATE INDEX job_runs_finished ON ops.job_runs (finished_at); -- for pruning
-- For the history: every filter it offers, alone or with others, ends in one of these (tests/bench/history.py).
CREATE INDEX job_runs_job_outcome ON ops.job_runs (job, outcome, id);
CREATE INDEX job_runs_queued ON ops.job_runs (queued_at);
CREATE INDEX job_runs_person ON ops.job_runs (triggered_by, id) WHERE triggered_by <> 'schedule';
CREATE INDEX job_runs_person_job ON ops.job_runs (triggered_by, job, id) WHERE triggered_by <> 'schedule';
CREATE INDEX job_runs_person_outcome ON ops.job_runs (triggered_by, outcome, id) WHERE triggered_by <> 'schedule';
COMMENT ON TABLE ops.job_runs IS
    'Runs, read through ops_view.job_runs; params may hold a secret, params_shown does not. While attempt is set that '
    'attempt, and no other, may say how the run ended.';

CREATE TABLE ops.job_attempts (
    attempt      bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    run          bigint NOT NULL REFERENCES ops.job_runs ON DELETE CASCADE,
    number       integer NOT NULL,
    worker       bigint NOT NULL,
    node         text NOT NULL,
    silent_after interval NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz,
    outcome      text CHECK (outcome IN ('SUCCESS', 'FAILED', 'CANCELLED')),
    lost         boolean NOT NULL DEFAULT false,
    error        text,
    refused_at   timestamptz,
    refused      text,
    UNIQUE (run, number)
) WITH (fillfactor = 50);
CREATE INDEX job_attempts_open ON ops.job_attempts (attempt) WHERE finished_at IS NULL;
COMMENT ON TABLE ops.job_attempts IS
    'One row per attempt; its number is the fencing token. Lost: its process went silent. Refused: what it said too late.';

CREATE TABLE ops.job_slots (
    job        text NOT NULL,
    slot       timestamptz NOT NULL,
    run        bigint,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (job, slot)
);
COMMENT ON TABLE ops.job_slots IS 'Each time a job was due, decided once, by whoever came first: its run, or none when it was skipped.';

CREATE TABLE ops.job_counts (
    job   text NOT NULL,
    event text NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (job, event)
) WITH (fillfactor = 50);
COMMENT ON TABLE ops.job_counts IS
    'Counters: tick_missed, tick_error, tick_max_instances, slot_skipped, slot_late, attempt_lost, attempt_timeout, result_refused.';

CREATE TABLE ops.job_totals (
    job              text NOT NULL,
    outcome          text NOT NULL,
    runs             bigint NOT NULL,
    seconds          double precision NOT NULL,
    buckets          bigint[] NOT NULL,
    last_finished_at timestamptz NOT NULL,
    PRIMARY KEY (job, outcome)
) WITH (fillfactor = 50);
COMMENT ON TABLE ops.job_totals IS
    'Counters: runs that ended, their seconds, and how many fell below each bound of ops.job_bounds() (the last: above all).';


-- Inside: nobody but the functions below calls these -----------------------------------------------------------------

CREATE FUNCTION ops.job_bounds() RETURNS double precision[]
LANGUAGE sql IMMUTABLE SET search_path = ops, pg_temp AS $$
    SELECT ARRAY[1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400]::double precision[]
$$;

CREATE FUNCTION ops.job_say(p_event text, p_run bigint, p_job text, p_state text) RETURNS void
LANGUAGE sql SET search_path = ops, pg_temp AS $$
    SELECT pg_notify('ops_jobs', json_build_object('event', p_event, 'run', p_run, 'job', p_job, 'state', p_state)::text)
$$;

CREATE FUNCTION ops.job_add(p_job text, p_event text, p_count bigint) RETURNS void
LANGUAGE sql SET search_path = ops, pg_temp AS $$
    INSERT INTO job_counts AS c (job, event, count) VALUES (p_job, p_event, p_count)
    ON CONFLICT (job, event) DO UPDATE SET count = c.count + excluded.count
$$;

CREATE FUNCTION ops.job_deliver(p_run job_runs, p_at timestamptz) RETURNS bigint
LANGUAGE sql SET search_path = ops, pg_temp AS $$
    SELECT (procrastinate_defer_jobs_v1(ARRAY[ROW(
        p_run.queue, p_run.job, p_run.priority, NULL, NULL, jsonb_build_object('run', p_run.id), p_at
    )::procrastinate_job_to_defer_v1]))[1]
$$;

CREATE FUNCTION ops.job_end(p_run job_runs, p_outcome text, p_result jsonb, p_error text) RETURNS void
LANGUAGE plpgsql SET search_path = ops, pg_temp AS $$
DECLARE
    ended timestamptz := clock_timestamp();
    seconds double precision := extract(epoch FROM ended - coalesce(p_run.started_at, ended));
    bucket integer := width_bucket(seconds, job_bounds()) + 1;
BEGIN
    UPDATE job_runs SET outcome = p_outcome, finished_at = ended, result = p_result, error = p_error, retry_at = NULL
    WHERE id = p_run.id;
    INSERT INTO job_totals AS t (job, outcome, runs, seconds, buckets, last_finished_at)
    VALUES (p_run.job, p_outcome, 1, seconds,
            (SELECT array_agg((n = bucket)::integer ORDER BY n) FROM generate_series(1, cardinality(job_bounds()) + 1) AS n), ended)
    ON CONFLICT (job, outcome) DO UPDATE SET
        runs = t.runs + 1, seconds = t.seconds + excluded.seconds, last_finished_at = excluded.last_finished_at,
        buckets[bucket] = t.buckets[bucket] + 1;
    PERFORM job_say('completed', p_run.id, p_run.job, p_outcome);
END $$;

CREATE FUNCTION ops.job_requeue(p_run job_runs, p_at timestamptz, p_error text) RETURNS void
LANGUAGE plpgsql SET search_path = ops, pg_temp AS $$
BEGIN
    UPDATE job_runs SET attempt = NULL, retry_at = p_at, error = p_error, progress = NULL,
        delivery = job_deliver(p_run, p_at)
    WHERE id = p_run.id;
    PERFORM job_say('queued', p_run.id, p_run.job, 'QUEUED');
END $$;

CREATE FUNCTION ops.job_lose(p_run job_runs, p_why text) RETURNS text
LANGUAGE plpgsql SET search_path = ops, pg_temp AS $$
DECLARE
    -- A job that takes its process down with it (out of memory) would go round for ever.
    most constant integer := 5;
    a job_attempts;
    state text := 'FAILED';
BEGIN
    SELECT * INTO STRICT a FROM job_attempts WHERE attempt = p_run.attempt FOR UPDATE;
    UPDATE job_attempts SET finished_at = clock_timestamp(), outcome = 'FAILED', lost = true, error = p_why
    WHERE attempt = a.attempt;
    IF p_run.cancel_requested_at IS NOT NULL THEN
        state := 'CANCELLED';
    -- Once ops_view.job_runs has called it FAILED, FAILED it stays.
    ELSIF NOT p_run.foreground AND a.heartbeat_at + a.silent_after >= clock_timestamp()
          AND (SELECT count(*) FROM job_attempts WHERE run = p_run.id AND lost) < most THEN
        state := 'QUEUED';
    END IF;
    IF state = 'QUEUED' THEN
        PERFORM job_requeue(p_run, NULL, p_why);
    ELSE
        PERFORM job_end(p_run, state, NULL, p_why);
    END IF;
    PERFORM job_add(p_run.job, 'attempt_lost', 1);
    RETURN state;
END $$;

CREATE FUNCTION ops.job_begin(p_run job_runs, p_worker bigint, p_silent_after interval) RETURNS job_attempts
LANGUAGE plpgsql SET search_path = ops, pg_temp AS $$
DECLARE
    a job_attempts;
BEGIN
    INSERT INTO job_attempts (run, number, worker, node, silent_after)
    SELECT p_run.id, p_run.attempts + 1, w.worker, w.node, p_silent_after FROM job_workers w WHERE w.worker = p_worker
    RETURNING * INTO STRICT a;
    UPDATE job_runs SET attempt = a.attempt, attempts = a.number, delivery = NULL, retry_at = NULL, error = NULL,
        started_at = coalesce(started_at, a.started_at)
    WHERE id = p_run.id;
    PERFORM job_say('started', p_run.id, p_run.job, 'RUNNING');
    RETURN a;
END $$;

CREATE FUNCTION ops.job_alive(p_worker bigint) RETURNS void
LANGUAGE plpgsql SET search_path = ops, pg_temp AS $$
BEGIN
    -- The lock keeps the row until the attempt that names it is committed.
    PERFORM FROM job_workers WHERE worker = p_worker FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'worker % was given up as dead', p_worker USING ERRCODE = 'OPS02';
    END IF;
END $$;

CREATE FUNCTION ops.job_create(
    p_job jobs, p_slot timestamptz, p_params jsonb, p_shown jsonb, p_priority integer, p_at timestamptz, p_by text,
    p_foreground boolean
) RETURNS bigint
LANGUAGE plpgsql SET search_path = ops, pg_temp AS $$
DECLARE
    r job_runs;
BEGIN
    INSERT INTO job_runs (job, slot, queue, priority, timeout_seconds, retries, retry_seconds, foreground, params,
                          params_shown, triggered_by, due_at)
    VALUES (p_job.job, p_slot, p_job.queue, p_priority, p_job.timeout_seconds, p_job.retries, p_job.retry_seconds,
            p_foreground, p_params, p_shown, p_by, greatest(p_at, clock_timestamp()))
    RETURNING * INTO r;
    IF NOT p_foreground THEN
        UPDATE job_runs SET delivery = job_deliver(r, p_at) WHERE id = r.id;
    END IF;
    PERFORM job_say('queued', r.id, r.job, 'QUEUED');
    RETURN r.id;
END $$;


-- Schedulers ----------------------------------------------------------------------------------------------------------

CREATE FUNCTION ops.job_declare(p_jobs jsonb, p_by text, p_complete boolean) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    WITH declared AS (
        SELECT * FROM jsonb_to_recordset(p_jobs) AS d (
            job text, title text, queue text, schedule text, timeout_seconds double precision,
            max_age_seconds double precision, retries integer, retry_seconds double precision, catch_up text, missing text[])
    ), retired AS (
        UPDATE jobs SET retired_at = clock_timestamp()
        WHERE p_complete AND retired_at IS NULL AND job NOT IN (SELECT job FROM declared)
    )
    INSERT INTO jobs AS j (job, title, queue, schedule, timeout_seconds, max_age_seconds, retries, retry_seconds, catch_up,
                           missing, declared_by)
    SELECT job, title, queue, schedule, timeout_seconds, max_age_seconds, retries, retry_seconds, catch_up, missing, p_by
    FROM declared ORDER BY job
    ON CONFLICT (job) DO UPDATE SET
        title = excluded.title, queue = excluded.queue, schedule = excluded.schedule,
        timeout_seconds = excluded.timeout_seconds, max_age_seconds = excluded.max_age_seconds,
        retries = excluded.retries, retry_seconds = excluded.retry_seconds, catch_up = excluded.catch_up,
        missing = excluded.missing, declared_at = excluded.declared_at, declared_by = excluded.declared_by, retired_at = NULL,
        -- What was not due under the old schedule, or could not run, is not caught up under the new one.
        slots_from = CASE WHEN j.schedule IS DISTINCT FROM excluded.schedule OR j.retired_at IS NOT NULL
                               OR j.missing <> excluded.missing
                          THEN greatest(j.slots_from, excluded.slots_from) ELSE j.slots_from END
    WHERE p_complete OR j.retired_at IS NOT NULL -- whoever runs one by hand has other settings, and no say in the rest
$$;
COMMENT ON FUNCTION ops.job_declare IS
    'The jobs there are, as this process knows them. If it knows all, any other is retired; else what is declared stands.';

CREATE FUNCTION ops.job_last_slots(OUT job text, OUT last_slot timestamptz, OUT clock timestamptz) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    SELECT j.job, greatest(j.slots_from, (SELECT max(s.slot) FROM job_slots s WHERE s.job = j.job)), clock_timestamp()
    FROM jobs j WHERE j.retired_at IS NULL AND j.schedule IS NOT NULL
$$;
COMMENT ON FUNCTION ops.job_last_slots IS 'Per scheduled job the slot decided last, and the time here: one clock for all schedulers.';

CREATE FUNCTION ops.job_decide(p_job text, p_slots timestamptz[], p_skipped boolean[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
DECLARE
    j jobs;
    last timestamptz;
    s record;
    made integer := 0;
    skipped integer := 0;
    late integer := 0;
BEGIN
    SELECT * INTO j FROM jobs WHERE job = p_job AND retired_at IS NULL FOR UPDATE; -- one scheduler at a time
    IF NOT FOUND THEN
        RETURN 0; -- retired meanwhile by a newer release
    END IF;
    last := greatest(j.slots_from, (SELECT max(slot) FROM job_slots WHERE job = p_job));
    FOR s IN SELECT DISTINCT ON (u.slot) u.slot, u.skip FROM unnest(p_slots, p_skipped) AS u (slot, skip) ORDER BY u.slot LOOP
        IF s.slot <= last THEN
            -- Usually the other scheduler was first. Without a row it is a slot that comes too late.
            late := late + (NOT EXISTS (SELECT FROM job_slots x WHERE x.job = p_job AND x.slot = s.slot))::integer;
        ELSIF s.skip THEN
            INSERT INTO job_slots (job, slot) VALUES (p_job, s.slot);
            skipped := skipped + 1;
        ELSE
            INSERT INTO job_slots (job, slot, run)
            VALUES (p_job, s.slot, job_create(j, s.slot, '{}', '{}', 0, NULL, 'schedule', false));
            made := made + 1;
        END IF;
    END LOOP;
    IF late > 0 THEN
        PERFORM job_add(p_job, 'slot_late', late);
    END IF;
    IF skipped > 0 THEN
        PERFORM job_add(p_job, 'slot_skipped', skipped);
    END IF;
    RETURN made;
END $$;
COMMENT ON FUNCTION ops.job_decide IS
    'Each slot once, whoever asks and however often: a row, and unless it is skipped its run, queued. Returns the runs made.';

CREATE FUNCTION ops.job_count(p_job text, p_event text, p_count bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
BEGIN
    IF p_event NOT IN ('tick_missed', 'tick_error', 'tick_max_instances', 'attempt_timeout') OR p_count < 1 THEN
        RAISE EXCEPTION 'job_count: % % is not counted here', p_count, p_event USING ERRCODE = '22023';
    END IF;
    PERFORM job_add(p_job, p_event, p_count);
END $$;
COMMENT ON FUNCTION ops.job_count IS 'Count what only a process can see; the rest is counted where it happens.';


-- People --------------------------------------------------------------------------------------------------------------

CREATE FUNCTION ops.job_enqueue(
    p_job text, p_params jsonb, p_shown jsonb, p_priority integer, p_at timestamptz, p_by text, p_foreground boolean
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
DECLARE
    j jobs;
BEGIN
    SELECT * INTO j FROM jobs WHERE job = p_job AND retired_at IS NULL;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN job_create(j, NULL, p_params, p_shown, p_priority, p_at, p_by, p_foreground);
END $$;
COMMENT ON FUNCTION ops.job_enqueue IS
    'Queue a run and return its id; NULL: no such job is declared. A foreground run waits for its caller''s job_claim.';

CREATE FUNCTION ops.job_cancel(p_run bigint, p_by text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
DECLARE
    r job_runs;
BEGIN
    SELECT * INTO r FROM job_runs WHERE id = p_run FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF r.outcome IS NOT NULL THEN
        RETURN r.outcome;
    END IF;
    UPDATE job_runs SET cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()),
        cancel_requested_by = coalesce(cancel_requested_by, p_by)
    WHERE id = p_run;
    IF r.attempt IS NULL THEN
        DELETE FROM procrastinate_jobs WHERE id = r.delivery;
        PERFORM job_end(r, 'CANCELLED', NULL, format('cancelled by %s before it started', p_by));
        RETURN 'CANCELLED';
    END IF;
    PERFORM job_say('cancel', r.id, r.job, 'RUNNING');
    RETURN 'RUNNING';
END $$;
COMMENT ON FUNCTION ops.job_cancel IS
    'Cancel: at once when queued; a running one (RUNNING) is asked to stop. Returns its state then; NULL: no such run.';


-- Workers -------------------------------------------------------------------------------------------------------------

CREATE FUNCTION ops.job_worker_start(p_node text, p_queues jsonb, p_scheduler boolean) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    INSERT INTO job_workers (node, queues, scheduler) VALUES (p_node, p_queues, p_scheduler) RETURNING worker
$$;
COMMENT ON FUNCTION ops.job_worker_start IS 'A process says that it is there.';

CREATE FUNCTION ops.job_worker_stop(p_worker bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    DELETE FROM job_workers WHERE worker = p_worker
$$;
COMMENT ON FUNCTION ops.job_worker_stop IS 'A process leaves; what it left behind is anybody''s to reap at once.';

CREATE FUNCTION ops.job_take(
    p_worker bigint, p_queues text[], p_silent_after interval,
    OUT attempt bigint, OUT number integer, OUT run bigint, OUT job text, OUT queue text, OUT slot timestamptz,
    OUT params jsonb, OUT triggered_by text, OUT timeout_seconds double precision, OUT wait_seconds double precision
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
#variable_conflict use_column
DECLARE
    delivery procrastinate_jobs;
    r job_runs;
    a job_attempts;
BEGIN
    PERFORM job_alive(p_worker);
    LOOP
        SELECT * INTO delivery FROM procrastinate_fetch_job_v2(p_queues, NULL);
        IF delivery.id IS NULL THEN
            wait_seconds := (SELECT extract(epoch FROM min(d.scheduled_at) - clock_timestamp()) FROM procrastinate_jobs d
                             WHERE d.status = 'todo' AND d.queue_name = ANY (p_queues));
            RETURN;
        END IF;
        -- From here on the attempt says who works on it: no delivery stays `doing` with nobody behind it.
        DELETE FROM procrastinate_jobs WHERE id = delivery.id;
        SELECT * INTO r FROM job_runs WHERE id = (delivery.args ->> 'run')::bigint FOR UPDATE;
        EXIT WHEN r.outcome IS NULL AND r.delivery = delivery.id;
    END LOOP;
    a := job_begin(r, p_worker, p_silent_after);
    attempt := a.attempt;
    number := a.number;
    run := r.id;
    job := r.job;
    queue := r.queue;
    slot := r.slot;
    params := r.params;
    triggered_by := r.triggered_by;
    timeout_seconds := r.timeout_seconds;
END $$;
COMMENT ON FUNCTION ops.job_take IS
    'Take the first run of these queues and begin an attempt at it; none: attempt is NULL, wait_seconds until one is due. '
    'OPS02: this worker was given up as dead.';

CREATE FUNCTION ops.job_claim(p_worker bigint, p_run bigint, p_silent_after interval, OUT attempt bigint, OUT number integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
#variable_conflict use_column
DECLARE
    r job_runs;
    a job_attempts;
BEGIN
    PERFORM job_alive(p_worker);
    SELECT * INTO r FROM job_runs WHERE id = p_run AND foreground AND outcome IS NULL AND attempt IS NULL FOR UPDATE;
    IF FOUND THEN
        a := job_begin(r, p_worker, p_silent_after);
        attempt := a.attempt;
        number := a.number;
    END IF;
END $$;
COMMENT ON FUNCTION ops.job_claim IS 'Begin the attempt at a foreground run; NULL when it was cancelled or begun already.';

CREATE FUNCTION ops.job_beat(p_worker bigint, p_attempts bigint[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
BEGIN
    UPDATE job_workers SET heartbeat_at = clock_timestamp() WHERE worker = p_worker;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- One that was silent for too long is FAILED for everybody who looked; it is not brought back.
    UPDATE job_attempts SET heartbeat_at = clock_timestamp()
    WHERE attempt = ANY (p_attempts) AND worker = p_worker AND finished_at IS NULL
      AND heartbeat_at + silent_after >= clock_timestamp();
    RETURN true;
END $$;
COMMENT ON FUNCTION ops.job_beat IS 'This worker lives, and so do these attempts of its; false: it was given up as dead.';

CREATE FUNCTION ops.job_progress(p_attempt bigint, p_progress jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
DECLARE
    r job_runs;
BEGIN
    UPDATE job_runs SET progress = p_progress
    WHERE attempt = p_attempt AND outcome IS NULL AND id = (SELECT run FROM job_attempts WHERE attempt = p_attempt)
    RETURNING * INTO r;
    IF FOUND THEN
        PERFORM job_say('progress', r.id, r.job, 'RUNNING');
    END IF;
END $$;
COMMENT ON FUNCTION ops.job_progress IS 'How far an attempt is; nothing happens if it is no longer the one.';

CREATE FUNCTION ops.job_watch(p_attempts bigint[], OUT attempt bigint, OUT live boolean, OUT cancel boolean) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    SELECT a.attempt,
           a.finished_at IS NULL AND a.heartbeat_at + a.silent_after >= clock_timestamp(),
           r.cancel_requested_at IS NOT NULL
    FROM job_attempts a JOIN job_runs r ON r.id = a.run
    WHERE a.attempt = ANY (p_attempts)
$$;
COMMENT ON FUNCTION ops.job_watch IS 'Of these attempts: does each still count, and is it asked to stop?';

CREATE FUNCTION ops.job_acknowledge(p_attempt bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    UPDATE job_runs SET cancel_acknowledged_at = coalesce(cancel_acknowledged_at, clock_timestamp())
    WHERE id = (SELECT run FROM job_attempts WHERE attempt = p_attempt)
$$;
COMMENT ON FUNCTION ops.job_acknowledge IS 'The job was told that it is to stop.';

CREATE FUNCTION ops.job_finish(p_attempt bigint, p_outcome text, p_result jsonb, p_error text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
DECLARE
    r job_runs;
    a job_attempts;
    failures integer;
BEGIN
    SELECT * INTO r FROM job_runs WHERE id = (SELECT run FROM job_attempts WHERE attempt = p_attempt) FOR UPDATE;
    SELECT * INTO a FROM job_attempts WHERE attempt = p_attempt FOR UPDATE;
    IF a.attempt IS NULL THEN
        RETURN NULL; -- pruned with its run
    END IF;
    IF a.finished_at IS NOT NULL AND NOT a.lost AND a.outcome = p_outcome THEN
        -- Said before, and only the reply was lost.
        RETURN coalesce(r.outcome, 'QUEUED');
    END IF;
    IF a.finished_at IS NULL AND a.heartbeat_at + a.silent_after < clock_timestamp() THEN
        PERFORM job_lose(r, format('no heart-beat since %s', to_char(a.heartbeat_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')));
        a.finished_at := clock_timestamp();
    END IF;
    IF a.finished_at IS NOT NULL THEN
        UPDATE job_attempts SET refused_at = clock_timestamp(), refused = p_outcome WHERE attempt = p_attempt;
        PERFORM job_add(r.job, 'result_refused', 1);
        RETURN NULL;
    END IF;
    UPDATE job_attempts SET finished_at = clock_timestamp(), outcome = p_outcome, error = p_error WHERE attempt = p_attempt;
    IF p_outcome = 'FAILED' AND r.cancel_requested_at IS NULL THEN
        failures := (SELECT count(*) FROM job_attempts WHERE run = r.id AND outcome = 'FAILED' AND NOT lost);
        IF failures <= r.retries AND NOT r.foreground THEN
            PERFORM job_requeue(r, clock_timestamp() + make_interval(secs => r.retry_seconds * 2 ^ (failures - 1)), p_error);
            RETURN 'QUEUED';
        END IF;
    END IF;
    PERFORM job_end(r, p_outcome, p_result, p_error);
    RETURN p_outcome;
END $$;
COMMENT ON FUNCTION ops.job_finish IS
    'How an attempt ended. Returns the run''s state then (QUEUED: it will be retried); NULL: too late, refused and counted.';

CREATE FUNCTION ops.job_release(p_attempt bigint, p_why text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
DECLARE
    r job_runs;
BEGIN
    SELECT * INTO r FROM job_runs WHERE attempt = p_attempt AND outcome IS NULL
        AND id = (SELECT run FROM job_attempts WHERE attempt = p_attempt) FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN job_lose(r, p_why);
END $$;
COMMENT ON FUNCTION ops.job_release IS 'Give an attempt up (the process is told to leave): its run goes back to the queue.';

CREATE FUNCTION ops.job_reap(
    p_worker bigint, p_known bigint[], p_worker_silent interval,
    OUT run bigint, OUT job text, OUT slot timestamptz, OUT state text, OUT error text
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
#variable_conflict use_column
DECLARE
    r job_runs;
BEGIN
    DELETE FROM job_workers WHERE worker IN (
        SELECT w.worker FROM job_workers w WHERE w.heartbeat_at < clock_timestamp() - p_worker_silent FOR UPDATE SKIP LOCKED);
    SELECT x.* INTO r
    FROM job_attempts a JOIN job_runs x ON x.id = a.run AND x.attempt = a.attempt
    WHERE a.finished_at IS NULL AND (
        NOT EXISTS (SELECT FROM job_workers w WHERE w.worker = a.worker)
        OR a.heartbeat_at + a.silent_after < clock_timestamp()
        -- Begun, and the worker never heard of it: the reply was lost.
        OR a.worker = p_worker AND a.attempt <> ALL (p_known) AND a.started_at < clock_timestamp() - p_worker_silent / 3)
    LIMIT 1 FOR UPDATE OF x SKIP LOCKED;
    IF NOT FOUND THEN
        -- A foreground run whose caller never came for it.
        SELECT x.* INTO r FROM job_runs x
        WHERE x.outcome IS NULL AND x.foreground AND x.attempt IS NULL AND x.queued_at < clock_timestamp() - interval '5 minutes'
        LIMIT 1 FOR UPDATE SKIP LOCKED;
        IF FOUND THEN
            error := 'whoever started it in the foreground was gone before it began';
            PERFORM job_end(r, 'FAILED', NULL, error);
            state := 'FAILED';
        END IF;
    ELSE
        SELECT format(
            CASE WHEN a.heartbeat_at + a.silent_after < clock_timestamp() THEN 'no heart-beat since %2$s (attempt %3$s on %1$s)'
                 ELSE 'the process %1$s that ran attempt %3$s is gone' END,
            a.node, to_char(a.heartbeat_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), a.number)
        INTO error FROM job_attempts a WHERE a.attempt = r.attempt;
        state := job_lose(r, error);
    END IF;
    run := r.id;
    job := r.job;
    slot := r.slot;
END $$;
COMMENT ON FUNCTION ops.job_reap IS
    'End one attempt whose process is gone or silent: its run is taken over, or FAILED. To be called until run is NULL.';

CREATE FUNCTION ops.job_prune(p_before timestamptz, p_limit integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
DECLARE
    pruned bigint;
BEGIN
    -- First the mark, then the rows: a slot without a row is over, not new.
    UPDATE jobs SET slots_from = p_before WHERE slots_from < p_before;
    DELETE FROM job_slots WHERE (job, slot) IN (SELECT job, slot FROM job_slots WHERE slot <= p_before LIMIT p_limit);
    DELETE FROM job_runs WHERE id IN (
        SELECT id FROM job_runs WHERE outcome IS NOT NULL AND finished_at < p_before ORDER BY finished_at LIMIT p_limit);
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END $$;
COMMENT ON FUNCTION ops.job_prune IS 'Forget runs that ended before, and slots up to then; totals stay. Returns the runs forgotten.';


-- History -------------------------------------------------------------------------------------------------------------
-- In ops_view, where everything is that people read, yet of our own database: `opsctl contract` leaves it alone.

DO $$ BEGIN
    IF to_regnamespace('ops_view') IS NULL THEN -- IF NOT EXISTS would ask for CREATE on the database all the same
        CREATE SCHEMA ops_view;
    END IF;
END $$;

-- statement_timestamp() is stable: a volatile clock would keep every query from reaching the indexes through the view.
CREATE VIEW ops_view.job_runs AS
SELECT r.id, r.job,
       CASE WHEN r.outcome IS NOT NULL THEN r.outcome
            WHEN r.attempt IS NULL THEN 'QUEUED'
            WHEN a.heartbeat_at + a.silent_after < statement_timestamp() THEN 'FAILED'
            ELSE 'RUNNING' END AS state,
       r.slot,
       r.queued_at AS queued,
       r.started_at AS started,
       e.finished,
       -- Of a run for later, still waiting or cancelled before its time, 0.
       greatest(extract(epoch FROM coalesce(r.started_at, e.finished, statement_timestamp()) - r.due_at), 0)::double precision
           AS queue_delay,
       extract(epoch FROM coalesce(e.finished, statement_timestamp()) - r.started_at)::double precision AS duration,
       r.attempts AS attempt,
       a.heartbeat_at AS heartbeat,
       a.node,
       r.queue, r.priority,
       r.due_at AS due,
       r.retry_at,
       r.triggered_by, r.cancel_requested_by,
       r.cancel_requested_at AS cancel_requested,
       r.cancel_acknowledged_at AS cancel_acknowledged,
       r.params_shown AS parameters,
       r.progress, r.result,
       CASE WHEN r.outcome IS NULL AND e.finished IS NOT NULL
            THEN 'no heart-beat since ' || to_char(a.heartbeat_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
            ELSE r.error END AS error,
       r.outcome
FROM ops.job_runs r
LEFT JOIN ops.job_attempts a ON a.attempt = r.attempt
CROSS JOIN LATERAL (SELECT CASE
    WHEN r.outcome IS NOT NULL THEN r.finished_at
    WHEN a.heartbeat_at + a.silent_after < statement_timestamp() THEN a.heartbeat_at + a.silent_after END AS finished) e;
COMMENT ON VIEW ops_view.job_runs IS
    'Every run; state is told from the time too, so it is right with no process alive. Times UTC, queue_delay and duration in '
    'seconds; queue_delay counts from due. For filters: outcome (NULL while unfinished), job, id.';


-- Who may -------------------------------------------------------------------------------------------------------------

DO $$
DECLARE
    f regprocedure;
BEGIN
    -- procrastinate's functions name their tables without a schema: tie them to this one.
    FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'ops'::regnamespace AND p.proname LIKE 'procrastinate\_%' LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = ops, pg_temp', f);
    END LOOP;
    FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'ops'::regnamespace
             AND (p.proname LIKE 'procrastinate\_%' OR p.proname LIKE 'job\_%') LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END $$;

GRANT USAGE ON SCHEMA ops TO ops_jobs;
GRANT USAGE ON SCHEMA ops_view TO ops_exporter, ops_grafana, ops_jobs, ops_staff;
GRANT SELECT ON ops_view.job_runs TO ops_exporter, ops_grafana, ops_jobs, ops_staff;
GRANT SELECT ON ops.jobs, ops.job_workers, ops.job_slots, ops.job_attempts, ops.job_counts, ops.job_totals
    TO ops_exporter, ops_jobs, ops_staff;

GRANT EXECUTE ON FUNCTION
    ops.job_enqueue(text, jsonb, jsonb, integer, timestamptz, text, boolean),
    ops.job_cancel(bigint, text)
TO ops_jobs, ops_staff;

GRANT EXECUTE ON FUNCTION
    ops.job_declare(jsonb, text, boolean),
    ops.job_last_slots(),
    ops.job_decide(text, timestamptz[], boolean[]),
    ops.job_count(text, text, bigint),
    ops.job_worker_start(text, jsonb, boolean),
    ops.job_worker_stop(bigint),
    ops.job_take(bigint, text[], interval),
    ops.job_claim(bigint, bigint, interval),
    ops.job_beat(bigint, bigint[]),
    ops.job_progress(bigint, jsonb),
    ops.job_watch(bigint[]),
    ops.job_acknowledge(bigint),
    ops.job_finish(bigint, text, jsonb, text),
    ops.job_release(bigint, text),
    ops.job_reap(bigint, bigint[], interval),
    ops.job_prune(timestamptz, integer)
TO ops_jobs;

SET LOCAL search_path = pg_catalog, pg_temp;
