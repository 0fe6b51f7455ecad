-- Who did what, and who may do anything at all: the audit trail, and operators as logins of their own.
--
-- The trail is a chain: each event's hash covers the hash before it and every field of its own. Nobody but
-- ops.audit_append adds to it, and that takes from the server what a client could forge: who (session_user), as what,
-- from which address, when. Writers take turns on the one row of ops.audit_head, to the end of their transaction, so the
-- chain has no forks and no gaps: an event that is rolled back never had a number.

CREATE TABLE ops.audit_events (
    seq         bigint PRIMARY KEY,
    at          timestamptz NOT NULL,
    who         text NOT NULL,
    role        text NOT NULL,
    host        text NOT NULL,
    address     text NOT NULL,
    event       text NOT NULL,
    action      text NOT NULL,
    target      text NOT NULL,
    payload     jsonb NOT NULL,
    reason      text NOT NULL,
    outcome     text NOT NULL CHECK (outcome IN ('intent', 'allowed', 'refused', 'failed')),
    error       text NOT NULL,
    intent      bigint,
    duration_ms bigint,
    hash        bytea NOT NULL CHECK (octet_length(hash) = 32),
    CHECK (intent IS NULL OR outcome <> 'intent'),
    -- The separator of the hashed text stands in no field (in JSON text it would be escaped).
    CHECK (strpos(host || event || action || target || reason || error, E'\x1f') = 0),
    CHECK (length(target) <= 1000 AND length(reason) <= 2000 AND length(error) <= 2000
           AND length(host) <= 255 AND length(event) <= 100 AND length(action) <= 100),
    CHECK (octet_length(payload::text) <= 65536)
);
CREATE INDEX audit_events_action ON ops.audit_events (action, seq);
CREATE INDEX audit_events_who ON ops.audit_events (who, seq);
CREATE INDEX audit_events_at ON ops.audit_events (at);
CREATE UNIQUE INDEX audit_events_intent ON ops.audit_events (intent) WHERE intent IS NOT NULL; -- one outcome each
COMMENT ON TABLE ops.audit_events IS
    'Every action, allowed, refused or failed; an intent comes before, its outcome after. Append-only, hash-chained.';

CREATE TABLE ops.audit_head (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    seq       bigint NOT NULL,
    hash      bytea NOT NULL,
    at        timestamptz NOT NULL
) WITH (fillfactor = 50);
INSERT INTO ops.audit_head (seq, hash, at) VALUES (0, decode(repeat('00', 32), 'hex'), clock_timestamp());
COMMENT ON TABLE ops.audit_head IS 'The last event''s number and hash: the row on which writers take turns.';

CREATE TABLE ops.audit_open (
    seq    bigint PRIMARY KEY,
    at     timestamptz NOT NULL,
    who    text NOT NULL,
    action text NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE ops.audit_open IS 'Intents without an outcome: running right now, or cut off in the middle.';

CREATE TABLE ops.audit_totals (
    action  text NOT NULL,
    outcome text NOT NULL,
    events  bigint NOT NULL,
    last_at timestamptz NOT NULL,
    PRIMARY KEY (action, outcome)
) WITH (fillfactor = 50);
COMMENT ON TABLE ops.audit_totals IS 'Counters over ops.audit_events, kept in the same transaction.';

CREATE TABLE ops.operators (
    name        text PRIMARY KEY,
    role        text NOT NULL CHECK (role IN ('staff', 'super')),
    added_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    added_by    text NOT NULL DEFAULT session_user,
    disabled_at timestamptz,
    disabled_by text
);
COMMENT ON TABLE ops.operators IS 'People: each a login of that name, a member of ops_staff or ops_super until disabled.';


-- Append-only -----------------------------------------------------------------------------------------------------

CREATE FUNCTION ops.audit_immutable() RETURNS trigger
LANGUAGE plpgsql SET search_path = ops, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'ops.audit_events is append-only: % is refused', lower(TG_OP) USING ERRCODE = 'OPS04';
END $$;
CREATE TRIGGER audit_immutable BEFORE UPDATE OR DELETE ON ops.audit_events
    FOR EACH ROW EXECUTE FUNCTION ops.audit_immutable();
CREATE TRIGGER audit_kept BEFORE TRUNCATE ON ops.audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION ops.audit_immutable();
-- ALWAYS: session_replication_role must not switch them off.
ALTER TABLE ops.audit_events ENABLE ALWAYS TRIGGER audit_immutable, ENABLE ALWAYS TRIGGER audit_kept;


-- Who asks ----------------------------------------------------------------------------------------------------------

CREATE FUNCTION ops.operator_role() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    -- The owner of schema ops may all that super may: somebody must add the first operator.
    SELECT CASE
        WHEN r.rolsuper THEN 'superuser'
        WHEN pg_has_role(session_user, n.nspowner, 'MEMBER') THEN 'owner'
        WHEN pg_has_role(session_user, 'ops_super', 'MEMBER') THEN 'super'
        WHEN pg_has_role(session_user, 'ops_staff', 'MEMBER') THEN 'staff'
        WHEN pg_has_role(session_user, 'ops_jobs', 'MEMBER') THEN 'jobs'
        ELSE 'none'
    END
    FROM pg_roles r, pg_namespace n WHERE r.rolname = session_user AND n.nspname = 'ops'
$$;
COMMENT ON FUNCTION ops.operator_role IS 'What the login of this session is: superuser, owner, super, staff, jobs or none.';


-- The one way in -----------------------------------------------------------------------------------------------------

CREATE FUNCTION ops.audit_append(
    p_event text, p_action text, p_outcome text, p_target text, p_payload jsonb, p_reason text, p_error text,
    p_host text, p_intent bigint, p_duration_ms bigint
) RETURNS ops.audit_head
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = ops, pg_temp
SET datestyle = 'ISO' SET timezone = 'UTC' -- as the hashed text writes the time
AS $$
DECLARE
    e audit_events;
    head audit_head;
BEGIN
    e.who := session_user;
    e.role := operator_role();
    e.host := coalesce(p_host, '');
    e.address := coalesce(host(inet_client_addr()), 'local');
    e.event := p_event;
    e.action := p_action;
    e.target := coalesce(p_target, '');
    e.payload := coalesce(p_payload, '{}');
    e.reason := coalesce(p_reason, '');
    e.outcome := p_outcome;
    e.error := coalesce(p_error, '');
    e.intent := p_intent;
    e.duration_ms := p_duration_ms;

    SELECT * INTO STRICT head FROM audit_head FOR UPDATE;
    e.seq := head.seq + 1;
    e.at := clock_timestamp();
    IF p_intent IS NOT NULL THEN
        DELETE FROM audit_open o WHERE o.seq = p_intent AND o.who = session_user AND o.action = p_action;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'intent % of % is not open for %', p_intent, p_action, session_user USING ERRCODE = 'OPS03';
        END IF;
    ELSIF p_outcome = 'intent' THEN
        INSERT INTO audit_open (seq, at, who, action) VALUES (e.seq, e.at, e.who, e.action);
    END IF;
    -- The same text as opslib/audit_chain.py writes it: change both or neither.
    e.hash := sha256(head.hash || convert_to(concat_ws(E'\x1f',
        e.seq, e.at, e.who, e.role, e.host, e.address, e.event, e.action, e.target, e.payload, e.reason, e.outcome, e.error,
        coalesce(e.intent, 0), coalesce(e.duration_ms, -1)), 'UTF8'));
    INSERT INTO audit_events SELECT e.*;
    UPDATE audit_head h SET seq = e.seq, hash = e.hash, at = e.at RETURNING * INTO head;
    INSERT INTO audit_totals AS t (action, outcome, events, last_at) VALUES (e.action, e.outcome, 1, e.at)
    ON CONFLICT (action, outcome) DO UPDATE SET events = t.events + 1, last_at = excluded.last_at;
    RETURN head;
END $$;
COMMENT ON FUNCTION ops.audit_append IS
    'Append one event; the new head. OPS03: its intent is not open, or somebody else''s.';


-- Operators ----------------------------------------------------------------------------------------------------------
--
-- These run as the owner of schema ops, who needs CREATEROLE. They can make members of ops_staff and ops_super and
-- nothing else, and touch no login that ops.operators does not list.

CREATE FUNCTION ops.operator_add(p_name text, p_role text, p_verifier text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
DECLARE
    known operators;
BEGIN
    IF (p_name ~ '^[a-z][a-z0-9_]{1,30}$' AND p_name !~ '^(ops|pg)_') IS NOT TRUE THEN
        RAISE EXCEPTION 'an operator''s name is 2 to 31 of a-z, 0-9 and _, begins with a letter, and not with ops_ or pg_'
            USING ERRCODE = '22023';
    END IF;
    IF (p_role IN ('staff', 'super')) IS NOT TRUE OR (p_verifier LIKE 'SCRAM-SHA-256$%') IS NOT TRUE THEN
        -- A verifier, so that the password itself never reaches the server or its log.
        RAISE EXCEPTION 'the role is staff or super, the password comes as a SCRAM-SHA-256 verifier' USING ERRCODE = '22023';
    END IF;
    SELECT * INTO known FROM operators o WHERE o.name = p_name FOR UPDATE;
    IF known.disabled_at IS NOT NULL
       AND EXISTS (SELECT FROM pg_roles r WHERE r.rolname = p_name AND NOT r.rolcanlogin AND NOT r.rolsuper) THEN
        -- As we left it. One that can log in was made anew by somebody else, for something else.
        EXECUTE format('ALTER ROLE %I LOGIN PASSWORD %L', p_name, p_verifier);
        EXECUTE format('GRANT %I TO %I', 'ops_' || p_role, p_name);
    ELSIF to_regrole(p_name) IS NOT NULL THEN
        RAISE EXCEPTION 'the role % exists already', p_name USING ERRCODE = '42710';
    ELSE
        EXECUTE format('CREATE ROLE %I LOGIN PASSWORD %L IN ROLE %I', p_name, p_verifier, 'ops_' || p_role);
    END IF;
    INSERT INTO operators (name, role) VALUES (p_name, p_role)
    ON CONFLICT (name) DO UPDATE SET role = excluded.role, added_at = clock_timestamp(), added_by = session_user,
        disabled_at = NULL, disabled_by = NULL;
END $$;
COMMENT ON FUNCTION ops.operator_add IS 'A login of that name, a member of ops_staff or ops_super; a disabled one comes back.';

CREATE FUNCTION ops.operator_disable(p_name text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
DECLARE
    gone operators;
BEGIN
    IF p_name = session_user THEN
        RAISE EXCEPTION 'nobody disables themselves: ask another super' USING ERRCODE = '22023';
    END IF;
    UPDATE operators o SET disabled_at = clock_timestamp(), disabled_by = session_user
    WHERE o.name = p_name AND o.disabled_at IS NULL RETURNING * INTO gone;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% is no operator, or disabled already', p_name USING ERRCODE = 'P0002';
    END IF;
    -- Losing the membership takes the rights of sessions that are open; ending them is only tidier, and not always ours.
    EXECUTE format('REVOKE %I FROM %I', 'ops_' || gone.role, p_name);
    EXECUTE format('ALTER ROLE %I NOLOGIN', p_name);
    BEGIN
        RETURN (SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a WHERE a.usename = p_name);
    EXCEPTION WHEN insufficient_privilege THEN
        RETURN 0;
    END;
END $$;
COMMENT ON FUNCTION ops.operator_disable IS 'No login and no rights any more; returns the sessions ended.';


-- Who may ------------------------------------------------------------------------------------------------------------

CREATE VIEW ops_view.audit_log AS
SELECT seq, at, who, role, action, target, reason, outcome, error, intent, duration_ms FROM ops.audit_events;
COMMENT ON VIEW ops_view.audit_log IS 'The trail without payloads and hashes, for boards and reports.';

REVOKE ALL ON FUNCTION
    ops.audit_immutable(), ops.operator_role(),
    ops.audit_append(text, text, text, text, jsonb, text, text, text, bigint, bigint),
    ops.operator_add(text, text, text), ops.operator_disable(text)
FROM PUBLIC;
GRANT SELECT ON ops.audit_events, ops.audit_head, ops.audit_open, ops.audit_totals TO ops_staff, ops_jobs;
GRANT SELECT ON ops.operators TO ops_staff;
GRANT SELECT ON ops.audit_head, ops.audit_open, ops.audit_totals TO ops_exporter;
GRANT SELECT ON ops_view.audit_log TO ops_exporter, ops_grafana, ops_jobs, ops_staff;
GRANT EXECUTE ON FUNCTION
    ops.operator_role(), ops.audit_append(text, text, text, text, jsonb, text, text, text, bigint, bigint)
TO ops_staff, ops_jobs;
GRANT EXECUTE ON FUNCTION ops.operator_add(text, text, text), ops.operator_disable(text) TO ops_super;
