-- name: plan_freely
-- Whoever counts does read whole tables.
SET LOCAL enable_seqscan TO DEFAULT;
SET LOCAL enable_bitmapscan TO DEFAULT;
SET LOCAL enable_hashjoin TO DEFAULT;
SET LOCAL enable_mergejoin TO DEFAULT;

-- name: counts
-- $1 minutes that are recent
SELECT
    (SELECT count(*) FROM metasync.change) AS pending,
    later.in_flight,
    later.waiting,
    (SELECT count(*) FROM metasync.dead_letter) AS dead,
    (
        SELECT extract(epoch FROM statement_timestamp() - enqueued_at)::float8
        FROM metasync.change
        ORDER BY id
        LIMIT 1
    ) AS oldest_pending_seconds,
    (
        SELECT coalesce(sum(applied + unchanged + dead), 0)::float8
        FROM metasync.history
        WHERE minute > recent.minute - $1::integer
    ) / (extract(epoch FROM statement_timestamp())::float8 - (recent.minute - $1::integer + 1) * 60) AS recent_per_second
FROM (SELECT floor(extract(epoch FROM statement_timestamp()) / 60)::bigint AS minute) AS recent
CROSS JOIN (
    SELECT
        count(*) FILTER (WHERE target.lease IS NOT NULL) AS in_flight,
        count(*) FILTER (WHERE target.lease IS NULL) AS waiting
    FROM metasync.target
    JOIN metasync.change ON change.target = target.number
    WHERE target.visible_at > statement_timestamp()
) AS later;

-- name: next_due
SELECT extract(epoch FROM min(visible_at) - statement_timestamp())::float8 FROM metasync.target;
