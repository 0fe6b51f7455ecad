-- name: balance_spend
-- database: ops
-- What went out of each balance of one provider since then, and over how many seconds: the sum of the decreases
-- between consecutive snapshots. A top-up is an increase, so it hides no spending but its own hour's.
SELECT currency, sum(greatest(before - amount, 0))::float8 AS spent,
       extract(epoch FROM max(taken_at) - min(taken_at))::float8 AS seconds
FROM (
    SELECT currency, amount, taken_at, lag(amount) OVER (PARTITION BY currency ORDER BY taken_at) AS before
    FROM ops.balances
    WHERE provider = %(provider)s AND taken_at >= %(since)s
) snapshots
GROUP BY currency;
