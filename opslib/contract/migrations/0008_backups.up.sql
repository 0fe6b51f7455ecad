-- What was proven of each backup, and what was tried. The backups themselves, their sizes and manifests are the
-- bucket's; a row here says of one content (its digest) that it was read to the end, or restored and compared. A few rows
-- a day: none is ever removed.

CREATE TABLE ops.backup_checks (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key        text NOT NULL CHECK (length(key) <= 1000),
    kind       text NOT NULL CHECK (kind IN ('verify', 'drill')),
    ok         boolean NOT NULL,
    sha256     text NOT NULL,
    bytes      bigint NOT NULL,
    seconds    double precision NOT NULL,
    error      text NOT NULL CHECK (length(error) <= 2000),
    run        bigint,
    checked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (ok = (error = ''))
);
CREATE INDEX backup_checks_last ON ops.backup_checks (key, kind, checked_at DESC, id DESC);
COMMENT ON TABLE ops.backup_checks IS 'Attempts to prove a backup: verify (digest and gzip), drill (restored and compared).';

CREATE FUNCTION ops.backup_checked(
    p_key text, p_kind text, p_ok boolean, p_sha256 text, p_bytes bigint, p_seconds double precision, p_error text,
    p_run bigint
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    INSERT INTO backup_checks (key, kind, ok, sha256, bytes, seconds, error, run)
    VALUES (p_key, p_kind, p_ok, p_sha256, p_bytes, p_seconds, left(p_error, 2000), p_run);
$$;
COMMENT ON FUNCTION ops.backup_checked IS 'Remember what became of one check of one backup.';

-- The manifest of a backup whose object is about to be made. It is here until it lies beside the object, so that a run
-- that ends in between leaves nothing no manifest describes: the next one puts it there. One row at most, mostly none.
CREATE TABLE ops.backup_unfinished (
    key      text PRIMARY KEY CHECK (length(key) <= 1000),
    bytes    bigint NOT NULL,
    manifest text NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE ops.backup_unfinished IS 'Manifests that are not in the bucket yet; the next run of backup-database puts them there.';

CREATE FUNCTION ops.backup_begun(p_key text, p_bytes bigint, p_manifest text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    INSERT INTO backup_unfinished (key, bytes, manifest) VALUES (p_key, p_bytes, p_manifest)
    ON CONFLICT (key) DO UPDATE SET bytes = excluded.bytes, manifest = excluded.manifest, begun_at = excluded.begun_at;
$$;
COMMENT ON FUNCTION ops.backup_begun IS 'Keep the manifest of a backup until it is in the bucket.';

CREATE FUNCTION ops.backup_finished(p_key text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = ops, pg_temp AS $$
    DELETE FROM backup_unfinished WHERE key = p_key;
$$;
COMMENT ON FUNCTION ops.backup_finished IS 'Its manifest is in the bucket, or its object never came to be.';

REVOKE ALL ON FUNCTION
    ops.backup_checked(text, text, boolean, text, bigint, double precision, text, bigint),
    ops.backup_begun(text, bigint, text), ops.backup_finished(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    ops.backup_checked(text, text, boolean, text, bigint, double precision, text, bigint),
    ops.backup_begun(text, bigint, text), ops.backup_finished(text) TO ops_jobs, ops_staff;
GRANT SELECT ON ops.backup_checks TO ops_exporter, ops_staff, ops_jobs;
GRANT SELECT ON ops.backup_unfinished TO ops_staff, ops_jobs;
