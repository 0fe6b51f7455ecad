DROP FUNCTION ops.backup_begun(text, bigint, text), ops.backup_finished(text);
DROP TABLE ops.backup_unfinished;
DROP FUNCTION ops.backup_checked(text, text, boolean, text, bigint, double precision, text, bigint);
DROP TABLE ops.backup_checks;
