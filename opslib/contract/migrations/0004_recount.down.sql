DROP FUNCTION ops.ledger_recount(text, text[], text[], text[], timestamptz[], double precision[]);
DROP FUNCTION ops.ledger_pass(text, timestamptz);

CREATE OR REPLACE FUNCTION ops.ledger_start(p_family text, p_cut timestamptz) RETURNS ops.ledger_marks
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
DECLARE
    mark ledger_marks;
BEGIN
    INSERT INTO ledger_marks (family, low_water) VALUES (p_family, p_cut) ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT mark FROM ledger_marks WHERE family = p_family;
    RETURN mark;
END $$;

-- Rows between the two marks stay remembered, so reading them again counts none twice.
ALTER TABLE ops.ledger_marks DROP COLUMN read_from, DROP COLUMN missed;
COMMENT ON TABLE ops.ledger_marks IS
    'Per family: rows from low_water on are counted one by one, older ones in slices up to backfill_from.';
