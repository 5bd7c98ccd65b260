-- name: plan_freely
-- Whoever counts does read whole tables.
SET LOCAL enable_seqscan TO DEFAULT;
SET LOCAL enable_bitmapscan TO DEFAULT;
SET LOCAL enable_hashjoin TO DEFAULT;
SET LOCAL enable_mergejoin TO DEFAULT;

-- name: counts
-- $1 minutes that are recent, $2 how far to count
SELECT
    extract(epoch FROM statement_timestamp())::float8 AS now,
    (SELECT count(*) FROM (SELECT FROM metasync.change LIMIT $2) AS counted) AS pending,
    later.in_flight,
    later.waiting,
    (SELECT count(*) FROM (SELECT FROM metasync.dead_letter LIMIT $2) AS counted) AS dead,
    (SELECT extract(epoch FROM enqueued_at)::float8 FROM metasync.change ORDER BY id LIMIT 1) AS oldest_enqueued_at,
    (
        SELECT coalesce(sum(applied + unchanged + dead), 0)::bigint
        FROM metasync.history
        WHERE minute > floor(extract(epoch FROM statement_timestamp()) / 60) - $1::integer
    ) AS recently_done
FROM (
    SELECT
        count(*) FILTER (WHERE counted.lease IS NOT NULL) AS in_flight,
        count(*) FILTER (WHERE counted.lease IS NULL) AS waiting
    FROM (
        SELECT target.lease
        FROM metasync.target
        JOIN metasync.change ON change.target = target.number
        WHERE target.visible_at > statement_timestamp()
        LIMIT $2
    ) AS counted
) AS later;

-- name: about
-- What the planner expects to find, by the tables' size as it is now.
EXPLAIN (FORMAT JSON) SELECT FROM metasync.change;

-- name: about_dead
EXPLAIN (FORMAT JSON) SELECT FROM metasync.dead_letter;

-- name: about_later
EXPLAIN (FORMAT JSON)
SELECT
FROM metasync.target
JOIN metasync.change ON change.target = target.number
WHERE target.visible_at > statement_timestamp();

-- name: leases
SELECT
    owner,
    count(*) AS completions,
    sum(changes)::bigint AS changes,
    min(lease) / 1000000::float8 AS since,
    extract(epoch FROM max(visible_at))::float8 AS until
FROM (
    SELECT
        owner, lease, visible_at, (SELECT count(*) FROM metasync.change WHERE change.target = target.number) AS changes
    FROM metasync.target
    WHERE visible_at > statement_timestamp() AND lease IS NOT NULL
) AS held
GROUP BY owner
ORDER BY since;

-- name: next_due
-- $1 the floor (NULL: none)
SELECT extract(epoch FROM min(visible_at) - statement_timestamp())::float8 AS seconds, statement_timestamp() AS at
FROM metasync.target
WHERE visible_at >= coalesce($1::timestamptz, '-infinity');

-- name: pending
-- $1 a target and $2 a change of it: those from there on; $3 how many
SELECT
    change.target, change.id, target.completion_id, change.change_id, change.mode, change.metadata,
    extract(epoch FROM change.enqueued_at)::float8, change.trials
FROM metasync.change
JOIN metasync.target ON target.number = change.target
WHERE (change.target, change.id) > ($1::bigint, $2::bigint)
ORDER BY change.target, change.id
LIMIT $3::integer;
