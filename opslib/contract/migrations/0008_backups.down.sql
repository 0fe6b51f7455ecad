DROP FUNCTION ops.backup_checked(text, text, boolean, text, bigint, double precision, text, bigint);
DROP TABLE ops.backup_checks;
