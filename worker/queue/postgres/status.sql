-- name: plan_freely
-- Counting reads whole tables.
SET LOCAL enable_seqscan TO DEFAULT;
SET LOCAL enable_bitmapscan TO DEFAULT;
SET LOCAL enable_hashjoin TO DEFAULT;
SET LOCAL enable_mergejoin TO DEFAULT;

-- name: counts
-- $1 minutes that count as recent, $2 how far to count
SELECT
    extract(epoch FROM statement_timestamp())::float8 AS now,
    (SELECT count(*) FROM (SELECT FROM metasync.change LIMIT $2) AS counted) AS pending,
    later.in_flight,
    later.waiting,
    (SELECT count(*) FROM (SELECT FROM metasync.dead_letter LIMIT $2) AS counted) AS dead,
    (SELECT extract(epoch FROM enqueued_at)::float8 FROM metasync.change ORDER BY id LIMIT 1) AS oldest_enqueued_at,
    (
        SELECT coalesce(sum(applied + unchanged + dead + superseded), 0)::bigint
        FROM metasync.history
        WHERE minute > floor(extract(epoch FROM statement_timestamp()) / 60) - $1::integer
    ) AS recently_done
FROM (
    SELECT
        count(*) FILTER (WHERE counted.lease IS NOT NULL) AS in_flight,
        count(*) FILTER (WHERE counted.lease IS NULL) AS waiting
    FROM (
        SELECT target.lease
        FROM (
            SELECT number, lease FROM metasync.target WHERE NOT urgent AND visible_at > statement_timestamp()
            UNION ALL
            SELECT number, lease FROM metasync.target WHERE urgent AND visible_at > statement_timestamp()
        ) AS target
        JOIN metasync.change ON change.target = target.number
        LIMIT $2
    ) AS counted
) AS later;

-- name: about
-- The number of rows that the planner expects, by the tables' present size.
EXPLAIN (FORMAT JSON) SELECT FROM metasync.change;

-- name: about_dead
EXPLAIN (FORMAT JSON) SELECT FROM metasync.dead_letter;

-- name: about_later
EXPLAIN (FORMAT JSON)
SELECT
FROM (
    SELECT number, lease FROM metasync.target WHERE NOT urgent AND visible_at > statement_timestamp()
    UNION ALL
    SELECT number, lease FROM metasync.target WHERE urgent AND visible_at > statement_timestamp()
) AS target
JOIN metasync.change ON change.target = target.number;

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
    FROM (
        SELECT number, owner, lease, visible_at
        FROM metasync.target
        WHERE NOT urgent AND visible_at > statement_timestamp()
        UNION ALL
        SELECT number, owner, lease, visible_at
        FROM metasync.target
        WHERE urgent AND visible_at > statement_timestamp()
    ) AS target
    WHERE lease IS NOT NULL
) AS held
GROUP BY owner
ORDER BY since;

-- name: next_due
-- $1 the floor of targets that are not urgent (NULL: none), $2 of the urgent ones
SELECT
    extract(epoch FROM least(
        (
            SELECT min(visible_at)
            FROM metasync.target
            WHERE NOT urgent AND visible_at >= coalesce($1::timestamptz, '-infinity')
        ),
        (
            SELECT min(visible_at)
            FROM metasync.target
            WHERE urgent AND visible_at >= coalesce($2::timestamptz, '-infinity')
        )
    ) - statement_timestamp())::float8 AS seconds,
    EXISTS (SELECT FROM metasync.target WHERE NOT urgent AND visible_at > statement_timestamp() + interval '2 hours')
    OR EXISTS (SELECT FROM metasync.target WHERE urgent AND visible_at > statement_timestamp() + interval '2 hours')
    AS is_put_off, -- by a clock that was ahead
    statement_timestamp() AS at;
