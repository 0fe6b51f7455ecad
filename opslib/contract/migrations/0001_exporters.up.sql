-- What the exporters must not forget: their checkpoints, the ledger of counted rows, balances over time.
--
-- Nobody but the owner writes these tables. Exporters call the functions below, which run as the owner
-- (SECURITY DEFINER) under a fixed search_path, so that a mistaken or stolen exporter cannot lower a counter.
-- Small tables that are rewritten every few seconds leave half of each page free: their updates then stay on the
-- page (HOT) and touch no index.

CREATE TABLE ops.exporter_checkpoints (
    exporter text PRIMARY KEY,
    owner    text NOT NULL,
    epoch    bigint NOT NULL,
    position jsonb NOT NULL DEFAULT '{}',
    saved_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON TABLE ops.exporter_checkpoints IS 'Where each exporter stands in its source; the epoch fences off a former owner.';

CREATE TABLE ops.exporter_series (
    exporter text NOT NULL,
    series   text NOT NULL,
    value    jsonb NOT NULL,
    PRIMARY KEY (exporter, series)
) WITH (fillfactor = 50);
COMMENT ON TABLE ops.exporter_series IS 'Durable counter and histogram values; a value is exposed only after it is here.';

CREATE TABLE ops.ledger_marks (
    family        text PRIMARY KEY,
    low_water     timestamptz NOT NULL,
    backfill_from timestamptz NOT NULL DEFAULT '-infinity',
    backfilled_at timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE ops.ledger_marks IS
    'Per family: rows from low_water on are counted one by one, older ones in slices up to backfill_from.';

CREATE TABLE ops.ledger_seen (
    family  text NOT NULL,
    id      text COLLATE "C" NOT NULL, -- compared by bytes, whatever the database's collation
    subject text NOT NULL,
    outcome text NOT NULL,
    created timestamptz NOT NULL,
    PRIMARY KEY (family, id)
);
CREATE INDEX ledger_seen_created ON ops.ledger_seen (family, created); -- for the purge
COMMENT ON TABLE ops.ledger_seen IS 'Rows counted since low_water, each with the outcome it was counted under.';

CREATE TABLE ops.ledger_totals (
    family  text NOT NULL,
    subject text NOT NULL,
    outcome text NOT NULL,
    events  bigint NOT NULL,
    amount  double precision NOT NULL,
    PRIMARY KEY (family, subject, outcome)
) WITH (fillfactor = 50);
COMMENT ON TABLE ops.ledger_totals IS 'Counters: events and the sum of their amounts; they only ever grow.';

CREATE TABLE ops.ledger_reclassified (
    family       text NOT NULL,
    subject      text NOT NULL,
    from_outcome text NOT NULL,
    to_outcome   text NOT NULL,
    events       bigint NOT NULL,
    PRIMARY KEY (family, subject, from_outcome, to_outcome)
);
COMMENT ON TABLE ops.ledger_reclassified IS 'Counted rows whose outcome changed afterwards; ledger_totals keeps the first.';

CREATE TABLE ops.balance_snapshots (
    provider text NOT NULL,
    currency text NOT NULL,
    amount   numeric NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (provider, currency, taken_at)
);
COMMENT ON TABLE ops.balance_snapshots IS 'About hourly funds per provider and currency: what the runway is computed from.';

CREATE TABLE ops.contract_state (
    singleton    boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    adapter      text NOT NULL,
    checksum     text NOT NULL,
    applied_at   timestamptz,
    suspended_at timestamptz
);
COMMENT ON TABLE ops.contract_state IS 'The adapter last applied to the application''s database, and whether it is suspended.';


-- Checkpoints ---------------------------------------------------------------------------------------------------

CREATE FUNCTION ops.checkpoint_claim(p_exporter text, p_owner text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    INSERT INTO exporter_checkpoints AS c (exporter, owner, epoch) VALUES (p_exporter, p_owner, 1)
    ON CONFLICT (exporter) DO UPDATE SET owner = excluded.owner, epoch = c.epoch + 1
    RETURNING epoch
$$;
COMMENT ON FUNCTION ops.checkpoint_claim IS 'Take a checkpoint over; saves under an older epoch fail from now on.';

CREATE FUNCTION ops.checkpoint_save(
    p_exporter text, p_epoch bigint, p_position jsonb, p_series text[], p_values jsonb[]
) RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
DECLARE
    saved timestamptz;
BEGIN
    IF cardinality(p_series) IS DISTINCT FROM cardinality(p_values) THEN
        RAISE EXCEPTION 'checkpoint_save: series and values differ in length' USING ERRCODE = '22023';
    END IF;
    -- The row lock taken here also keeps two savers of one exporter apart.
    UPDATE exporter_checkpoints c SET position = c.position || p_position, saved_at = clock_timestamp()
    WHERE c.exporter = p_exporter AND c.epoch = p_epoch
    RETURNING c.saved_at INTO saved;
    IF saved IS NULL THEN
        RAISE EXCEPTION 'checkpoint % is not held under epoch %', p_exporter, p_epoch
            USING ERRCODE = 'OPS01', HINT = 'Another process claimed it; claim again before saving.';
    END IF;
    -- Values are absolute, so a save repeated after a lost answer changes nothing.
    INSERT INTO exporter_series AS s (exporter, series, value)
    SELECT DISTINCT ON (g.series) p_exporter, g.series, g.value
    FROM unnest(p_series, p_values) WITH ORDINALITY AS g (series, value, n)
    ORDER BY g.series, g.n DESC
    ON CONFLICT (exporter, series) DO UPDATE SET value = excluded.value WHERE s.value <> excluded.value;
    RETURN saved;
END $$;
COMMENT ON FUNCTION ops.checkpoint_save IS 'Merge the position and set the series, all or nothing; OPS01 when fenced off.';


-- The ledger: each row of the application counted exactly once ----------------------------------------------------
--
-- Every function below first locks the family's row in ledger_marks. That makes callers of one family take turns, and
-- (READ COMMITTED) each statement after the lock sees what the one before committed. Exactly-once then needs no more
-- than "is this id in ledger_seen?", and two callers with overlapping ids cannot deadlock.

CREATE FUNCTION ops.ledger_start(p_family text, p_cut timestamptz) RETURNS ops.ledger_marks
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
DECLARE
    mark ledger_marks;
BEGIN
    INSERT INTO ledger_marks (family, low_water) VALUES (p_family, p_cut) ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT mark FROM ledger_marks WHERE family = p_family;
    RETURN mark;
END $$;
COMMENT ON FUNCTION ops.ledger_start IS 'The family''s mark, made at p_cut the first time: older rows are the back-fill''s.';

CREATE FUNCTION ops.ledger_backfill(
    p_family text, p_from timestamptz, p_to timestamptz, p_done boolean,
    p_subjects text[], p_outcomes text[], p_events bigint[], p_amounts double precision[]
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
BEGIN
    IF cardinality(p_subjects) <> ALL (ARRAY[cardinality(p_outcomes), cardinality(p_events), cardinality(p_amounts)])
       OR 0 > ANY (p_events) OR p_to < p_from OR (p_to = p_from AND NOT p_done) THEN
        -- A slice that does not move the position could be added twice by a retry; one below zero would be a decrement.
        RAISE EXCEPTION 'ledger_backfill: arrays differ in length, a count is negative, or the slice is empty'
            USING ERRCODE = '22023';
    END IF;
    -- The position is the fence: a slice repeated, or sent by an exporter that lost its place, matches nothing.
    UPDATE ledger_marks SET backfill_from = p_to, backfilled_at = CASE WHEN p_done THEN clock_timestamp() END
    WHERE family = p_family AND backfilled_at IS NULL AND backfill_from = p_from;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO ledger_totals AS t (family, subject, outcome, events, amount)
    SELECT p_family, g.subject, g.outcome, sum(g.events), sum(coalesce(g.amount, 0))
    FROM unnest(p_subjects, p_outcomes, p_events, p_amounts) AS g (subject, outcome, events, amount)
    GROUP BY g.subject, g.outcome
    ON CONFLICT (family, subject, outcome)
        DO UPDATE SET events = t.events + excluded.events, amount = t.amount + excluded.amount;
    RETURN true;
END $$;
COMMENT ON FUNCTION ops.ledger_backfill IS 'Add one slice of history; false and nothing done unless it starts where the last ended.';

CREATE FUNCTION ops.ledger_advance(
    p_family text, p_ids text[], p_subjects text[], p_outcomes text[], p_created timestamptz[], p_amounts double precision[]
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
DECLARE
    mark timestamptz;
    counted bigint;
BEGIN
    IF cardinality(p_ids) <> ALL (
        ARRAY[cardinality(p_subjects), cardinality(p_outcomes), cardinality(p_created), cardinality(p_amounts)]
    ) THEN
        RAISE EXCEPTION 'ledger_advance: arrays differ in length' USING ERRCODE = '22023';
    END IF;
    SELECT low_water INTO mark FROM ledger_marks WHERE family = p_family FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'ledger family % was never started', p_family
            USING ERRCODE = 'OPS02', HINT = 'Call ops.ledger_start first.';
    END IF;
    WITH given AS MATERIALIZED (
        -- Below the mark nobody remembers what was counted: such a row is the back-fill's or was purged, never ours.
        SELECT DISTINCT ON (g.id) g.id, g.subject, g.outcome, g.created, g.amount
        FROM unnest(p_ids, p_subjects, p_outcomes, p_created, p_amounts)
             WITH ORDINALITY AS g (id, subject, outcome, created, amount, n)
        WHERE g.created >= mark
        ORDER BY g.id, g.n DESC
    ), compared AS MATERIALIZED (
        SELECT g.*, s.subject AS counted_subject, s.outcome AS counted_outcome
        FROM given g LEFT JOIN ledger_seen s ON s.family = p_family AND s.id = g.id
    ), fresh AS (
        INSERT INTO ledger_seen (family, id, subject, outcome, created)
        SELECT p_family, c.id, c.subject, c.outcome, c.created FROM compared c WHERE c.counted_outcome IS NULL
    ), added AS (
        INSERT INTO ledger_totals AS t (family, subject, outcome, events, amount)
        SELECT p_family, c.subject, c.outcome, count(*), sum(coalesce(c.amount, 0))
        FROM compared c WHERE c.counted_outcome IS NULL GROUP BY c.subject, c.outcome
        ON CONFLICT (family, subject, outcome)
            DO UPDATE SET events = t.events + excluded.events, amount = t.amount + excluded.amount
    ), corrected AS (
        UPDATE ledger_seen s SET outcome = c.outcome
        FROM compared c WHERE c.counted_outcome <> c.outcome AND s.family = p_family AND s.id = c.id
    ), reclassified AS (
        INSERT INTO ledger_reclassified AS r (family, subject, from_outcome, to_outcome, events)
        SELECT p_family, c.counted_subject, c.counted_outcome, c.outcome, count(*)
        FROM compared c WHERE c.counted_outcome <> c.outcome
        GROUP BY c.counted_subject, c.counted_outcome, c.outcome
        ON CONFLICT (family, subject, from_outcome, to_outcome) DO UPDATE SET events = r.events + excluded.events
    )
    SELECT count(*) INTO counted FROM compared WHERE counted_outcome IS NULL;
    RETURN counted;
END $$;
COMMENT ON FUNCTION ops.ledger_advance IS
    'Count each row not seen before, once; a seen row with another outcome is a reclassification. Returns the newly counted.';

CREATE FUNCTION ops.ledger_purge(p_family text, p_before timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
DECLARE
    mark timestamptz;
    purged bigint;
BEGIN
    -- Until the back-fill has ended low_water is also its upper end: moving it would count the rows between twice.
    UPDATE ledger_marks SET low_water = greatest(low_water, p_before)
    WHERE family = p_family AND backfilled_at IS NOT NULL
    RETURNING low_water INTO mark;
    DELETE FROM ledger_seen WHERE family = p_family AND created < mark;
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END $$;
COMMENT ON FUNCTION ops.ledger_purge IS 'Raise the mark and forget what was seen below it; totals stay. Returns the rows forgotten.';


-- Balances ------------------------------------------------------------------------------------------------------

CREATE FUNCTION ops.balance_snapshot(p_provider text, p_currency text, p_amount numeric) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(format('ops.balance:%s:%s', p_provider, p_currency), 0));
    -- 55 minutes: an hourly caller that runs a little early still leaves one per hour.
    INSERT INTO balance_snapshots (provider, currency, amount)
    SELECT p_provider, p_currency, p_amount
    WHERE NOT EXISTS (SELECT FROM balance_snapshots b WHERE b.provider = p_provider AND b.currency = p_currency
                      AND b.taken_at > clock_timestamp() - interval '55 minutes');
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION ops.balance_snapshot IS 'Keep a balance unless one of the last 55 minutes is kept; true when it was.';


-- A function is everybody's until this is said.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ops FROM PUBLIC;
