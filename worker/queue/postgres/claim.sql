-- name: lease
-- $1 most targets, $2 the floor (NULL: none), $3 seconds, $4 owner
-- Below the floor is nothing but what was claimed before: rows that are gone, but stay in the index until a vacuum, and
-- as long as any old transaction is open, no vacuum takes them.
WITH due AS MATERIALIZED (
    SELECT number, visible_at
    FROM metasync.target
    WHERE visible_at >= coalesce($2::timestamptz, '-infinity') AND visible_at <= statement_timestamp()
    ORDER BY visible_at
    LIMIT $1::integer
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE metasync.target
SET
    visible_at = statement_timestamp() + make_interval(secs => $3::float8),
    lease = nextval('metasync.lease'),
    owner = $4::text
FROM due
WHERE target.number = due.number
RETURNING
    target.number,
    target.completion_id,
    target.lease,
    target.attempts,
    due.visible_at AS was_visible_at,
    extract(epoch FROM statement_timestamp())::float8 AS claimed_at;

-- name: changes
-- $1 numbers of targets, oldest due first, $2 their completion ids, $3 most changes of each, $4 most changes of all but
-- the first
WITH counted AS MATERIALIZED (
    SELECT claimed.*, (
        SELECT count(*)
        FROM (SELECT FROM metasync.change WHERE change.target = claimed.target LIMIT $3::integer) AS mine
    ) AS changes
    FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS claimed (target, completion_id, position)
),
summed AS (
    SELECT target, completion_id, position, sum(changes) OVER (ORDER BY position) AS changes_so_far
    FROM counted
    WHERE changes > 0
)
SELECT
    change.id AS number,
    summed.completion_id,
    change.change_id,
    change.mode,
    change.metadata,
    extract(epoch FROM change.enqueued_at)::float8 AS enqueued_at
FROM summed
CROSS JOIN LATERAL (
    SELECT * FROM metasync.change WHERE change.target = summed.target ORDER BY id LIMIT $3::integer
) AS change
WHERE changes_so_far <= $4::bigint OR position = (SELECT min(position) FROM summed)
ORDER BY position, number;

-- name: put_back
-- $1 numbers of targets, $2 their former visible_at, $3 seconds until one is looked at again that has no changes yet
UPDATE metasync.target
SET
    visible_at = CASE
        WHEN EXISTS (SELECT FROM metasync.change WHERE change.target = target.number)
        THEN back.visible_at
        ELSE statement_timestamp() + make_interval(secs => $3::float8)
    END,
    lease = NULL,
    owner = NULL
FROM unnest($1::bigint[], $2::timestamptz[]) AS back (number, visible_at)
WHERE target.number = back.number;

-- name: extend
-- $1 completion ids, $2 leases, $3 seconds; gives the positions of those whose lease holds
WITH held AS MATERIALIZED (
    SELECT target.number, claim.position
    FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS claim (completion_id, lease, position)
    JOIN metasync.completion ON completion.completion_id = claim.completion_id
    JOIN metasync.target ON target.number = completion.target AND target.lease = claim.lease
    ORDER BY target.completion_id
    FOR NO KEY UPDATE OF target
),
extended AS (
    UPDATE metasync.target
    SET visible_at = statement_timestamp() + make_interval(secs => $3::float8)
    FROM held
    WHERE target.number = held.number
)
SELECT position FROM held;

-- name: release
-- $1 completion ids, $2 leases
WITH held AS MATERIALIZED (
    SELECT target.number
    FROM unnest($1::text[], $2::bigint[]) AS claim (completion_id, lease)
    JOIN metasync.completion ON completion.completion_id = claim.completion_id
    JOIN metasync.target ON target.number = completion.target AND target.lease = claim.lease
    ORDER BY target.completion_id
    FOR NO KEY UPDATE OF target
)
UPDATE metasync.target
SET visible_at = statement_timestamp(), lease = NULL, owner = NULL
FROM held
WHERE target.number = held.number;
