-- name: record
INSERT INTO sample (minute, pending, oldest_seconds, rate_per_second, limit_per_second)
VALUES (:minute, :pending, :oldest_seconds, :rate_per_second, :limit_per_second)
ON CONFLICT (minute) DO UPDATE SET
    pending = excluded.pending,
    oldest_seconds = excluded.oldest_seconds,
    rate_per_second = excluded.rate_per_second,
    limit_per_second = excluded.limit_per_second;

-- name: done
SELECT json_group_array(json_array(minute, applied, unchanged, dead, superseded, withdrawn)) FROM history WHERE minute >= :since;

-- name: samples
SELECT json_group_array(json_array(minute, json_object(
    'pending', pending,
    'oldest_seconds', oldest_seconds,
    'rate_per_second', rate_per_second,
    'limit_per_second', limit_per_second
)))
FROM sample
WHERE minute >= :since;
