-- Counters start at zero after this: Prometheus sees a reset, and the history of balances is gone.
DROP FUNCTION ops.balance_snapshot(text, text, numeric);
DROP FUNCTION ops.ledger_purge(text, timestamptz);
DROP FUNCTION ops.ledger_advance(text, text[], text[], text[], timestamptz[], double precision[]);
DROP FUNCTION ops.ledger_backfill(text, timestamptz, timestamptz, boolean, text[], text[], bigint[], double precision[]);
DROP FUNCTION ops.ledger_start(text, timestamptz);
DROP FUNCTION ops.checkpoint_save(text, bigint, jsonb, text[], jsonb[]);
DROP FUNCTION ops.checkpoint_claim(text, text);
DROP TABLE ops.contract_state, ops.balance_snapshots, ops.ledger_reclassified, ops.ledger_totals, ops.ledger_seen,
    ops.ledger_marks, ops.exporter_series, ops.exporter_checkpoints;
