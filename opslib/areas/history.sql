-- name: runs_history
-- database: ops
-- Runs, newest first. Numbers grow with time, so a span of time is a span of numbers, found in the index on `queued`;
-- the minute is for those that were queued at once and numbered the other way round, and the exact comparison for what
-- it lets in; with an interval of nothing, or the planner would take both for independent and read by the time.
SELECT r.* FROM ops_view.job_runs r
WHERE true
  AND r.job = %(job)s -- if: job
  AND r.triggered_by = %(by)s -- if: by
  AND r.id < %(before)s -- if: before
  AND r.id >= (SELECT s.id FROM ops_view.job_runs s WHERE s.queued >= %(since)s::timestamptz - interval '1 minute' ORDER BY s.queued LIMIT 1) AND r.queued + interval '0' >= %(since)s -- if: since
  AND r.id <= (SELECT u.id FROM ops_view.job_runs u WHERE u.queued < %(until)s::timestamptz + interval '1 minute' ORDER BY u.queued DESC LIMIT 1) AND r.queued + interval '0' < %(until)s -- if: until
ORDER BY r.id DESC LIMIT %(limit)s;

-- name: runs_history_of_state
-- database: ops
-- The same in one state: of those that ended by their outcome, of the few that did not by the time.
(
    SELECT r.* FROM ops_view.job_runs r
    WHERE r.outcome = %(state)s
      AND r.job = %(job)s -- if: job
      AND r.triggered_by = %(by)s -- if: by
      AND r.id < %(before)s -- if: before
      AND r.id >= (SELECT s.id FROM ops_view.job_runs s WHERE s.queued >= %(since)s::timestamptz - interval '1 minute' ORDER BY s.queued LIMIT 1) AND r.queued + interval '0' >= %(since)s -- if: since
      AND r.id <= (SELECT u.id FROM ops_view.job_runs u WHERE u.queued < %(until)s::timestamptz + interval '1 minute' ORDER BY u.queued DESC LIMIT 1) AND r.queued + interval '0' < %(until)s -- if: until
    ORDER BY r.id DESC LIMIT %(limit)s
)
UNION ALL
(
    SELECT r.* FROM ops_view.job_runs r
    WHERE r.outcome IS NULL AND r.state = %(state)s
      AND r.job = %(job)s -- if: job
      AND r.triggered_by = %(by)s -- if: by
      AND r.id < %(before)s -- if: before
      AND r.queued >= %(since)s -- if: since
      AND r.queued < %(until)s -- if: until
    ORDER BY r.id DESC LIMIT %(limit)s
)
ORDER BY id DESC LIMIT %(limit)s;

-- name: runs_stats
-- database: ops
-- Every job's kept runs by state, with seconds of those that ended (of their median, of the slowest twentieth, of the
-- slowest), and the share of successes among those that succeeded or failed.
SELECT r.job,
       count(*) FILTER (WHERE r.state = 'QUEUED') AS queued,
       count(*) FILTER (WHERE r.state = 'RUNNING') AS running,
       count(*) FILTER (WHERE r.state = 'SUCCESS') AS success,
       count(*) FILTER (WHERE r.state = 'FAILED') AS failed,
       count(*) FILTER (WHERE r.state = 'CANCELLED') AS cancelled,
       (count(*) FILTER (WHERE r.state = 'SUCCESS'))::float8
           / nullif(count(*) FILTER (WHERE r.state IN ('SUCCESS', 'FAILED')), 0) AS success_rate,
       avg(r.duration) FILTER (WHERE r.finished IS NOT NULL) AS mean_seconds,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY r.duration) FILTER (WHERE r.finished IS NOT NULL) AS median_seconds,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY r.duration) FILTER (WHERE r.finished IS NOT NULL) AS p95_seconds,
       max(r.duration) FILTER (WHERE r.finished IS NOT NULL) AS longest_seconds,
       min(r.queued) AS since
FROM ops_view.job_runs r
GROUP BY r.job
ORDER BY r.job;

-- name: runs_changed
-- database: ops
-- Runs that may have changed since somebody looked: those open then, and every newer one.
SELECT * FROM ops_view.job_runs WHERE id = ANY (%(open)s::bigint[])
UNION ALL
SELECT * FROM ops_view.job_runs WHERE id > %(last)s AND id <> ALL (%(open)s::bigint[])
ORDER BY id;

-- name: runs_newest
-- database: ops
-- The highest number of a run; 0 where there is none.
SELECT coalesce(max(id), 0) AS id FROM ops_view.job_runs;
