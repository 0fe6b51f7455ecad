REVOKE SELECT ON ops.exporter_series, ops.ledger_marks FROM ops_jobs;
DROP FUNCTION ops.purge_job_runs(date, text[]), ops.job_run_lines(date, text, integer);
DROP FUNCTION ops.archive_purged(text);
DROP FUNCTION ops.archive_verified(text, text, date, text, bigint, bigint);
DROP FUNCTION ops.facts_save(date, boolean, text[], text[], numeric[]);
DROP TABLE ops.archives, ops.daily_facts, ops.fact_days;

DROP FUNCTION ops.weekly_queued(date, text, text), ops.weekly_begin(date, text, text, text);
DROP TABLE ops.weekly_summaries;

DROP FUNCTION ops.flag_override_end(text), ops.flag_override(text, boolean, timestamptz, text), ops.flags_broken(text[]),
    ops.flags_synced(text, timestamptz, jsonb), ops.flag_applied(text, boolean);
DROP TABLE ops.flag_syncs, ops.flag_overrides, ops.flag_states;

REVOKE ALL ON ops.balances FROM ops_jobs;
DROP FUNCTION ops.balances_prune(timestamptz);
ALTER TABLE ops.balances RENAME TO balance_snapshots;
CREATE OR REPLACE FUNCTION ops.balance_snapshot(p_provider text, p_currency text, p_amount numeric) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(format('ops.balance:%s:%s', p_provider, p_currency), 0));
    INSERT INTO balance_snapshots (provider, currency, amount)
    SELECT p_provider, p_currency, p_amount
    WHERE NOT EXISTS (SELECT FROM balance_snapshots b WHERE b.provider = p_provider AND b.currency = p_currency
                      AND b.taken_at > clock_timestamp() - interval '55 minutes');
    RETURN FOUND;
END $$;
REVOKE ALL ON FUNCTION ops.balance_snapshot(text, text, numeric) FROM ops_jobs;
GRANT EXECUTE ON FUNCTION ops.balance_snapshot(text, text, numeric) TO ops_exporter;
