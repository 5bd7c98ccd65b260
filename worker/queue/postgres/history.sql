-- name: record
-- $1 pending, $2 age of the oldest, $3 rate, $4 limit
INSERT INTO metasync.sample (minute, pending, oldest_seconds, rate_per_second, limit_per_second)
VALUES (
    floor(extract(epoch FROM statement_timestamp()) / 60), $1::bigint, $2::float8, $3::float8, $4::float8
)
ON CONFLICT (minute) DO UPDATE SET
    pending = excluded.pending,
    oldest_seconds = excluded.oldest_seconds,
    rate_per_second = excluded.rate_per_second,
    limit_per_second = excluded.limit_per_second;

-- name: newest
SELECT floor(extract(epoch FROM statement_timestamp()) / 60)::bigint;

-- name: done
-- $1 the first minute
SELECT
    minute,
    sum(applied)::bigint AS applied,
    sum(unchanged)::bigint AS unchanged,
    sum(dead)::bigint AS dead,
    sum(superseded)::bigint AS superseded,
    sum(withdrawn)::bigint AS withdrawn
FROM metasync.history
WHERE minute >= $1::bigint
GROUP BY minute;

-- name: samples
-- $1 the first minute
SELECT minute, pending, oldest_seconds, rate_per_second, limit_per_second
FROM metasync.sample
WHERE minute >= $1::bigint;
