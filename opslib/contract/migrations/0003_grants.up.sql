-- What the roles may do in schema ops. Reading needs a grant per table, so that a table added later is closed until
-- its own migration opens it.
GRANT USAGE ON SCHEMA ops TO ops_exporter, ops_staff;

GRANT SELECT ON ops.exporter_checkpoints, ops.exporter_series, ops.ledger_marks, ops.ledger_seen, ops.ledger_totals,
    ops.ledger_reclassified, ops.balance_snapshots, ops.contract_state TO ops_exporter, ops_staff;

-- The only way an exporter writes.
GRANT EXECUTE ON FUNCTION
    ops.checkpoint_claim(text, text),
    ops.checkpoint_save(text, bigint, jsonb, text[], jsonb[]),
    ops.ledger_start(text, timestamptz),
    ops.ledger_backfill(text, timestamptz, timestamptz, boolean, text[], text[], bigint[], double precision[]),
    ops.ledger_advance(text, text[], text[], text[], timestamptz[], double precision[]),
    ops.ledger_purge(text, timestamptz),
    ops.balance_snapshot(text, text, numeric)
TO ops_exporter;
