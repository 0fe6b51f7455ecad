-- A nightly recount: rows that were committed later than the horizon after their own timestamp.
--
-- Two marks instead of one. Each refresh reads from `read_from`, which trails the clock by the horizon; what was seen is
-- remembered down to `low_water`, which a recount raises by a day once it has compared that day with what was counted.

ALTER TABLE ops.ledger_marks ADD COLUMN read_from timestamptz, ADD COLUMN missed bigint NOT NULL DEFAULT 0;
UPDATE ops.ledger_marks SET read_from = low_water;
ALTER TABLE ops.ledger_marks ALTER COLUMN read_from SET NOT NULL;
COMMENT ON TABLE ops.ledger_marks IS
    'Per family: rows from low_water on are remembered one by one, read again from read_from on, older ones added in '
    'slices up to backfill_from; missed were found by the recount alone.';

CREATE OR REPLACE FUNCTION ops.ledger_start(p_family text, p_cut timestamptz) RETURNS ops.ledger_marks
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
DECLARE
    mark ledger_marks;
BEGIN
    INSERT INTO ledger_marks (family, low_water, read_from) VALUES (p_family, p_cut, p_cut) ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT mark FROM ledger_marks WHERE family = p_family;
    RETURN mark;
END $$;

CREATE FUNCTION ops.ledger_pass(p_family text, p_read timestamptz) RETURNS timestamptz
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    -- Until the back-fill has ended nothing was read yet.
    UPDATE ledger_marks SET read_from = greatest(read_from, p_read)
    WHERE family = p_family AND backfilled_at IS NOT NULL
    RETURNING read_from
$$;
COMMENT ON FUNCTION ops.ledger_pass IS 'Everything before p_read was read: the next refresh begins there.';

CREATE FUNCTION ops.ledger_recount(
    p_family text, p_ids text[], p_subjects text[], p_outcomes text[], p_created timestamptz[], p_amounts double precision[]
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
DECLARE
    counted bigint := ledger_advance(p_family, p_ids, p_subjects, p_outcomes, p_created, p_amounts);
BEGIN
    UPDATE ledger_marks SET missed = missed + counted WHERE family = p_family AND counted > 0;
    RETURN counted;
END $$;
COMMENT ON FUNCTION ops.ledger_recount IS 'As ledger_advance; what it newly counts was missed, and is counted as that, too.';

REVOKE ALL ON FUNCTION
    ops.ledger_pass(text, timestamptz),
    ops.ledger_recount(text, text[], text[], text[], timestamptz[], double precision[])
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    ops.ledger_pass(text, timestamptz),
    ops.ledger_recount(text, text[], text[], text[], timestamptz[], double precision[])
TO ops_exporter;
