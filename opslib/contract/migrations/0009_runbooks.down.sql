DROP FUNCTION ops.runbook_end(bigint, integer, text), ops.runbook_begin(text, integer, text, text);
DROP TABLE ops.runbook_runs;
