-- Which step of which runbook was run, by whom, how long it took and what it printed. The audit has who and why; this has
-- the output, which is too long for it. A few rows a month: none is ever removed.

CREATE TABLE ops.runbook_runs (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    runbook     text NOT NULL CHECK (length(runbook) <= 100),
    step        integer NOT NULL CHECK (step > 0),
    title       text NOT NULL CHECK (length(title) <= 500),
    reason      text NOT NULL CHECK (length(reason) <= 2000),
    who         text NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    exit_code   integer,
    output      text CHECK (length(output) <= 20000),
    CHECK ((finished_at IS NULL) = (exit_code IS NULL) AND (finished_at IS NULL) = (output IS NULL))
);
COMMENT ON TABLE ops.runbook_runs IS 'Steps of runbooks that were run; without finished_at: running, or cut off.';

CREATE FUNCTION ops.runbook_begin(p_runbook text, p_step integer, p_title text, p_reason text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    INSERT INTO runbook_runs (runbook, step, title, reason, who)
    VALUES (p_runbook, p_step, left(p_title, 500), left(p_reason, 2000), session_user) RETURNING id
$$;
COMMENT ON FUNCTION ops.runbook_begin IS 'A step begins; who runs it is the login. Returns the number of its row.';

CREATE FUNCTION ops.runbook_end(p_id bigint, p_exit_code integer, p_output text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    -- Once, and by whoever began it.
    UPDATE runbook_runs SET finished_at = clock_timestamp(), exit_code = p_exit_code, output = right(p_output, 20000)
    WHERE id = p_id AND who = session_user AND finished_at IS NULL
$$;
COMMENT ON FUNCTION ops.runbook_end IS 'What became of a step; of its output the end is kept.';

REVOKE ALL ON FUNCTION ops.runbook_begin(text, integer, text, text), ops.runbook_end(bigint, integer, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    ops.runbook_begin(text, integer, text, text), ops.runbook_end(bigint, integer, text) TO ops_staff;
GRANT SELECT ON ops.runbook_runs TO ops_staff;
