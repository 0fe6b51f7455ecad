-- What jobs remember: balances, flags, weekly summaries, facts of each day.

-- Balances ------------------------------------------------------------------------------------------------------
-- From here on the job `balance-snapshot` writes them; the exporter only reads.

ALTER TABLE ops.balance_snapshots RENAME TO balances;
CREATE OR REPLACE FUNCTION ops.balance_snapshot(p_provider text, p_currency text, p_amount numeric) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(format('ops.balance:%s:%s', p_provider, p_currency), 0));
    -- 55 minutes: an hourly caller that runs a little early still leaves one per hour.
    INSERT INTO balances (provider, currency, amount)
    SELECT p_provider, p_currency, p_amount
    WHERE NOT EXISTS (SELECT FROM balances b WHERE b.provider = p_provider AND b.currency = p_currency
                      AND b.taken_at > clock_timestamp() - interval '55 minutes');
    RETURN FOUND;
END $$;

CREATE FUNCTION ops.balances_prune(p_before timestamptz) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    -- The runway looks back seven days, whatever a caller asks.
    WITH gone AS (
        DELETE FROM balances WHERE taken_at < least(p_before, clock_timestamp() - interval '8 days') RETURNING 1
    )
    SELECT count(*) FROM gone
$$;
COMMENT ON FUNCTION ops.balances_prune IS 'Forget balances older than that; never those of the last eight days. Returns how many.';

REVOKE ALL ON FUNCTION ops.balance_snapshot(text, text, numeric) FROM ops_exporter;
REVOKE ALL ON FUNCTION ops.balances_prune(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.balance_snapshot(text, text, numeric), ops.balances_prune(timestamptz) TO ops_jobs;


-- Flags ---------------------------------------------------------------------------------------------------------

CREATE TABLE ops.flag_states (
    key        text PRIMARY KEY,
    state      text NOT NULL CHECK (state IN ('in_sync', 'drift', 'unknown', 'document_only', 'undeclared')),
    wanted     boolean,
    live       boolean,
    applied    boolean,
    applied_at timestamptz,
    changed_by text,
    changed_at timestamptz,
    expires_on date
);
COMMENT ON TABLE ops.flag_states IS
    'Per flag as flag-sync last saw it: what file and overrides want, what the application has, what we applied last.';

CREATE TABLE ops.flag_overrides (
    key    text PRIMARY KEY,
    value  boolean NOT NULL,
    until  timestamptz NOT NULL,
    set_by text NOT NULL,
    set_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason text NOT NULL
);
COMMENT ON TABLE ops.flag_overrides IS 'Values that hold instead of the file''s until a time; flag-sync puts the file''s back.';

CREATE TABLE ops.flag_syncs (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    tried_at   timestamptz NOT NULL,
    synced_at  timestamptz,
    checksum   text,
    errors     text[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE ops.flag_syncs IS 'When flag-sync last tried, when it last went through, and what is wrong with the file.';

CREATE FUNCTION ops.flag_applied(p_key text, p_value boolean) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    INSERT INTO flag_states AS s (key, state, wanted, live, applied, applied_at)
    VALUES (p_key, 'in_sync', p_value, p_value, p_value, clock_timestamp())
    ON CONFLICT (key) DO UPDATE SET state = 'in_sync', wanted = p_value, live = p_value, applied = p_value,
        applied_at = excluded.applied_at, changed_by = NULL, changed_at = NULL
$$;
COMMENT ON FUNCTION ops.flag_applied IS 'The application has this value now, by us.';

CREATE FUNCTION ops.flags_synced(p_checksum text, p_now timestamptz, p_states jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
BEGIN
    DELETE FROM flag_overrides WHERE until <= p_now;
    DELETE FROM flag_states WHERE key NOT IN (SELECT e ->> 'key' FROM jsonb_array_elements(p_states) e);
    INSERT INTO flag_states (key, state, wanted, live, applied, applied_at, changed_by, changed_at, expires_on)
    SELECT r.key, r.state, r.wanted, r.live, r.applied,
           CASE WHEN r.applied IS NOT NULL THEN clock_timestamp() END, r.changed_by, r.changed_at, r.expires_on
    FROM jsonb_to_recordset(p_states) AS r (
        key text, state text, wanted boolean, live boolean, applied boolean,
        changed_by text, changed_at timestamptz, expires_on date
    )
    ON CONFLICT (key) DO UPDATE SET state = excluded.state, wanted = excluded.wanted, live = excluded.live,
        applied = excluded.applied, changed_by = excluded.changed_by, changed_at = excluded.changed_at,
        expires_on = excluded.expires_on,
        applied_at = CASE WHEN flag_states.applied IS NOT DISTINCT FROM excluded.applied
            THEN flag_states.applied_at ELSE excluded.applied_at END;
    INSERT INTO flag_syncs AS f (tried_at, synced_at, checksum) VALUES (p_now, p_now, p_checksum)
    ON CONFLICT (singleton) DO UPDATE SET tried_at = p_now, synced_at = p_now, checksum = p_checksum, errors = '{}';
END $$;
COMMENT ON FUNCTION ops.flags_synced IS 'A sync went through: what it found, flag by flag. Overrides over by then are gone.';

CREATE FUNCTION ops.flags_broken(p_errors text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    INSERT INTO flag_syncs AS f (tried_at, errors) VALUES (clock_timestamp(), p_errors)
    ON CONFLICT (singleton) DO UPDATE SET tried_at = excluded.tried_at, errors = excluded.errors
$$;
COMMENT ON FUNCTION ops.flags_broken IS 'The file cannot be used: why, each error with its place. Nothing else changes.';

CREATE FUNCTION ops.flag_override(p_key text, p_value boolean, p_until timestamptz, p_reason text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
BEGIN
    IF p_until <= clock_timestamp() OR p_until > clock_timestamp() + interval '31 days' THEN
        RAISE EXCEPTION 'an override ends within 31 days; what shall last longer belongs into the file'
            USING ERRCODE = '22023';
    END IF;
    INSERT INTO flag_overrides (key, value, until, set_by, reason) VALUES (p_key, p_value, p_until, session_user, p_reason)
    ON CONFLICT (key) DO UPDATE SET value = p_value, until = p_until, set_by = session_user,
        set_at = clock_timestamp(), reason = p_reason;
END $$;
COMMENT ON FUNCTION ops.flag_override IS 'This value holds instead of the file''s until then.';

CREATE FUNCTION ops.flag_override_end(p_key text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    WITH gone AS (DELETE FROM flag_overrides WHERE key = p_key RETURNING 1) SELECT EXISTS (SELECT FROM gone)
$$;
COMMENT ON FUNCTION ops.flag_override_end IS 'The override is over; true if there was one. The next flag-sync puts the file''s value back.';

REVOKE ALL ON FUNCTION
    ops.flag_applied(text, boolean),
    ops.flags_synced(text, timestamptz, jsonb),
    ops.flags_broken(text[]),
    ops.flag_override(text, boolean, timestamptz, text),
    ops.flag_override_end(text)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    ops.flag_applied(text, boolean), ops.flags_synced(text, timestamptz, jsonb), ops.flags_broken(text[])
TO ops_jobs, ops_staff; -- staff: `opsctl flags sync` does by hand what the job does
GRANT EXECUTE ON FUNCTION
    ops.flag_override(text, boolean, timestamptz, text), ops.flag_override_end(text)
TO ops_staff;
GRANT SELECT ON ops.flag_states, ops.flag_overrides, ops.flag_syncs TO ops_exporter, ops_jobs, ops_staff;


-- Weekly summaries ----------------------------------------------------------------------------------------------

CREATE TABLE ops.weekly_summaries (
    week      date NOT NULL CHECK (extract(isodow FROM week) = 1),
    user_id   text NOT NULL,
    queue     text NOT NULL,
    job_id    text NOT NULL,
    begun_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    queued_at timestamptz,
    PRIMARY KEY (week, user_id, queue)
);
COMMENT ON TABLE ops.weekly_summaries IS
    'One job per user, week (its Monday) and queue: begun before it is added, queued after. A removed job is not added again.';

CREATE FUNCTION ops.weekly_begin(p_week date, p_user text, p_queue text, p_job text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    INSERT INTO weekly_summaries (week, user_id, queue, job_id) VALUES (p_week, p_user, p_queue, p_job)
    ON CONFLICT DO NOTHING;
    SELECT queued_at IS NULL FROM weekly_summaries WHERE week = p_week AND user_id = p_user AND queue = p_queue
$$;
COMMENT ON FUNCTION ops.weekly_begin IS 'True if this job is still to be added to its queue.';

CREATE FUNCTION ops.weekly_queued(p_week date, p_user text, p_queue text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    UPDATE weekly_summaries SET queued_at = clock_timestamp()
    WHERE week = p_week AND user_id = p_user AND queue = p_queue AND queued_at IS NULL
$$;
COMMENT ON FUNCTION ops.weekly_queued IS 'The job is in its queue.';

REVOKE ALL ON FUNCTION ops.weekly_begin(date, text, text, text), ops.weekly_queued(date, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.weekly_begin(date, text, text, text), ops.weekly_queued(date, text, text) TO ops_jobs;
GRANT SELECT ON ops.weekly_summaries TO ops_jobs, ops_staff;

GRANT USAGE ON SCHEMA ops TO ops_jobs;
GRANT SELECT ON ops.balances TO ops_jobs;


-- Facts: what is left of a day when its rows are gone -------------------------------------------------------------

CREATE TABLE ops.fact_days (
    day        date PRIMARY KEY,
    final      boolean NOT NULL,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE ops.fact_days IS 'Days whose facts are written; one that is final is never written again.';

CREATE TABLE ops.daily_facts (
    day     date NOT NULL REFERENCES ops.fact_days ON DELETE CASCADE,
    subject text NOT NULL,
    key     text NOT NULL,
    value   numeric NOT NULL,
    PRIMARY KEY (day, subject, key)
);
COMMENT ON TABLE ops.daily_facts IS
    'Counts and sums of one UTC day; a subject ending in _total is a counter''s reading at the end of it.';

CREATE FUNCTION ops.facts_save(p_day date, p_final boolean, p_subjects text[], p_keys text[], p_values numeric[])
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
BEGIN
    IF p_day >= (now() AT TIME ZONE 'UTC')::date
       OR cardinality(p_subjects) <> ALL (ARRAY[cardinality(p_keys), cardinality(p_values)]) THEN
        RAISE EXCEPTION 'facts_save: the day is not over, or arrays differ in length' USING ERRCODE = '22023';
    END IF;
    -- The row lock taken here also keeps two savers of one day apart.
    INSERT INTO fact_days AS d (day, final) VALUES (p_day, p_final)
    ON CONFLICT (day) DO UPDATE SET final = excluded.final, written_at = clock_timestamp() WHERE NOT d.final;
    IF NOT FOUND THEN
        RETURN false; -- its rows may be gone by now: what would be counted is less than what was
    END IF;
    -- A reading of a counter is of the moment it was taken: the first one stands.
    DELETE FROM daily_facts f WHERE f.day = p_day AND f.subject NOT LIKE '%\_total';
    INSERT INTO daily_facts (day, subject, key, value)
    SELECT p_day, g.subject, g.key, g.value
    FROM unnest(p_subjects, p_keys, p_values) AS g (subject, key, value)
    ON CONFLICT (day, subject, key) DO NOTHING;
    RETURN true;
END $$;
COMMENT ON FUNCTION ops.facts_save IS 'Write a day''s facts in place of those before; false and nothing done once it is final.';


-- Archives: what was written to the object store before its rows were deleted --------------------------------------

CREATE TABLE ops.archives (
    key         text PRIMARY KEY,
    source      text NOT NULL,
    day         date NOT NULL,
    sha256      text NOT NULL,
    bytes       bigint NOT NULL,
    lines       bigint NOT NULL,
    verified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    purged_at   timestamptz
);
COMMENT ON TABLE ops.archives IS
    'Archived rows, by object: what was read back and proven; purged_at is set when none of them is in the table any more.';

CREATE FUNCTION ops.archive_verified(
    p_key text, p_source text, p_day date, p_sha256 text, p_bytes bigint, p_lines bigint
) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    -- An object is never written twice: another digest under its key is no newer truth but damage.
    INSERT INTO archives AS a (key, source, day, sha256, bytes, lines)
    VALUES (p_key, p_source, p_day, p_sha256, p_bytes, p_lines)
    ON CONFLICT (key) DO UPDATE SET verified_at = clock_timestamp()
        WHERE (a.source, a.day, a.sha256, a.bytes, a.lines) = (p_source, p_day, p_sha256, p_bytes, p_lines);
    SELECT a.sha256 = p_sha256 AND a.bytes = p_bytes AND a.lines = p_lines FROM archives a WHERE a.key = p_key
$$;
COMMENT ON FUNCTION ops.archive_verified IS 'Remember what an archive holds; false if it is remembered otherwise.';

CREATE FUNCTION ops.archive_purged(p_key text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    UPDATE archives SET purged_at = clock_timestamp() WHERE key = p_key AND purged_at IS NULL
$$;
COMMENT ON FUNCTION ops.archive_purged IS 'Every row this archive holds was deleted from its table.';

-- Our own runs, archived and deleted as the application's webhook rows are (`ops_app` in the adapter).

CREATE FUNCTION ops.job_run_lines(p_day date, p_after text, p_batch integer) RETURNS TABLE (place text, line text)
LANGUAGE sql STABLE SECURITY DEFINER ROWS 1000
SET search_path = ops, pg_temp SET timezone = 'UTC' SET extra_float_digits = 1 AS $$
    SELECT r.finished_at::text || '/' || r.id, to_jsonb(v)::text
    FROM job_runs r JOIN ops_view.job_runs v ON v.id = r.id
    WHERE r.outcome IS NOT NULL AND p_day <= (now() AT TIME ZONE 'UTC')::date - 8
      AND r.finished_at >= p_day::timestamp AT TIME ZONE 'UTC' AND r.finished_at < (p_day + 1)::timestamp AT TIME ZONE 'UTC'
      AND (p_after IS NULL OR (r.finished_at, r.id) > (split_part(p_after, '/', 1)::timestamptz, split_part(p_after, '/', 2)::bigint))
    ORDER BY r.finished_at, r.id LIMIT least(p_batch, 10000)
$$;
COMMENT ON FUNCTION ops.job_run_lines IS
    'A page of the runs that ended on a day at least 8 days ago, as history shows them, parameters redacted: to archive them.';

CREATE FUNCTION ops.purge_job_runs(p_day date, p_lines text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = ops, pg_temp SET timezone = 'UTC' SET extra_float_digits = 1 AS $$
DECLARE
    purged bigint;
BEGIN
    IF p_day > (now() AT TIME ZONE 'UTC')::date - 8 THEN
        RAISE EXCEPTION 'purge_job_runs: % is younger than 8 days', p_day USING ERRCODE = '22023';
    END IF;
    DELETE FROM job_runs r
    USING (SELECT (given.line::jsonb ->> 'id')::bigint AS id, given.line FROM unnest(p_lines) AS given (line)) archived
    WHERE r.id = archived.id AND r.outcome IS NOT NULL
      AND r.finished_at >= p_day::timestamp AT TIME ZONE 'UTC' AND r.finished_at < (p_day + 1)::timestamp AT TIME ZONE 'UTC'
      AND archived.line = (SELECT to_jsonb(v)::text FROM ops_view.job_runs v WHERE v.id = r.id);
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END $$;
COMMENT ON FUNCTION ops.purge_job_runs IS 'Delete those runs of a day that are, byte for byte, one of these lines.';

REVOKE ALL ON FUNCTION
    ops.job_run_lines(date, text, integer),
    ops.purge_job_runs(date, text[]),
    ops.facts_save(date, boolean, text[], text[], numeric[]),
    ops.archive_verified(text, text, date, text, bigint, bigint),
    ops.archive_purged(text)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    ops.job_run_lines(date, text, integer),
    ops.purge_job_runs(date, text[]),
    ops.facts_save(date, boolean, text[], text[], numeric[]),
    ops.archive_verified(text, text, date, text, bigint, bigint),
    ops.archive_purged(text)
TO ops_jobs;
GRANT SELECT ON ops.fact_days, ops.daily_facts, ops.archives TO ops_jobs, ops_staff;
GRANT SELECT ON ops.exporter_series, ops.ledger_marks TO ops_jobs; -- counters a day's facts note down; is a back-fill on?
