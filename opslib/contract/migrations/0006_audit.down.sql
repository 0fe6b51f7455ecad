DROP FUNCTION ops.operator_disable(text);
DROP FUNCTION ops.operator_add(text, text, text);
DROP FUNCTION ops.audit_append(text, text, text, text, jsonb, text, text, text, bigint, bigint);
DROP FUNCTION ops.operator_role();
DROP VIEW ops_view.audit_log;
-- Operators keep their logins: those are the cluster's, and another database may know them, too.
DROP TABLE ops.operators, ops.audit_totals, ops.audit_open, ops.audit_head, ops.audit_events;
DROP FUNCTION ops.audit_immutable();
