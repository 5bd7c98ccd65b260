-- Three ways to the ids of the selected changes, a piece at a time. `ids` is NULL if a piece has none. `last` is the
-- last id looked at, or NULL at the end.

-- name: by_batch
-- $1 look after this id, $2 and up to this one, $3 how many to look at, $4 the numbers of the batch
WITH looked_at AS MATERIALIZED (
    SELECT id, batch
    FROM metasync.change
    WHERE id > $1::bigint AND id <= $2::bigint
    ORDER BY id
    LIMIT $3::integer
)
SELECT
    array_agg(id ORDER BY id) FILTER (WHERE batch = ANY ($4::bigint[])) AS ids,
    CASE WHEN count(*) = $3 THEN max(id) END AS last
FROM looked_at;

-- name: by_completion
-- $1 look after this id, $2 how many to look at, $3 completion id, $4 numbers of a batch, or NULL
WITH looked_at AS MATERIALIZED (
    SELECT id, batch
    FROM metasync.change
    WHERE target = (SELECT target FROM metasync.completion WHERE completion_id = $3::text) AND id > $1::bigint
    ORDER BY id
    LIMIT $2::integer
)
SELECT
    array_agg(id ORDER BY id) FILTER (WHERE $4::bigint[] IS NULL OR batch = ANY ($4)) AS ids,
    CASE WHEN count(*) = $2 THEN max(id) END AS last
FROM looked_at;

-- name: by_change_id
-- $1 change id, $2 completion id or NULL, $3 numbers of a batch, or NULL
SELECT array_agg(change.id) AS ids, NULL::bigint AS last
FROM metasync.change
WHERE change.change_id = $1::text
    AND ($2::text IS NULL OR (SELECT completion_id FROM metasync.target WHERE number = change.target) = $2)
    AND ($3::bigint[] IS NULL OR change.batch = ANY ($3));

-- name: batch
-- $1 the name of a batch; returns its numbers, or NULL if there is none, and the range of its changes
SELECT
    (SELECT array_agg(number) FROM metasync.batch WHERE name = $1::text) AS numbers,
    min(first_change) AS first_change,
    max(last_change) AS last_change
FROM metasync.batch_total
WHERE name = $1::text;

-- name: everything
-- $1 a target and $2 one of its changes: returns the changes after it; $3 how many
SELECT
    change.target, change.id, (SELECT completion_id FROM metasync.target WHERE number = change.target), change.change_id, change.mode, change.metadata,
    extract(epoch FROM change.enqueued_at)::float8, change.trials, change.as_of,
    CASE WHEN change.batch IS NOT NULL THEN (SELECT name FROM metasync.batch WHERE number = change.batch) END
FROM metasync.change
WHERE (change.target, change.id) > ($1::bigint, $2::bigint)
ORDER BY change.target, change.id
LIMIT $3::integer;

-- name: changes
-- $1 ids
SELECT
    change.id, (SELECT completion_id FROM metasync.target WHERE number = change.target), change.change_id, change.mode, change.metadata,
    extract(epoch FROM change.enqueued_at)::float8, change.trials, change.as_of,
    CASE WHEN change.batch IS NOT NULL THEN (SELECT name FROM metasync.batch WHERE number = change.batch) END
FROM metasync.change
WHERE change.id = ANY ($1::bigint[])
ORDER BY change.id;

-- name: hold
-- $1 ids of changes; returns their targets, and keeps them from being claimed or settled
SELECT
    number,
    completion_id,
    lease IS NOT NULL AND visible_at > statement_timestamp() AS is_leased
FROM metasync.target
WHERE number = ANY (ARRAY(SELECT DISTINCT target FROM metasync.change WHERE id = ANY ($1::bigint[])))
ORDER BY completion_id
FOR NO KEY UPDATE OF target;

-- name: remove
-- $1 ids of changes, $2 numbers of targets: deletes the changes of these targets
WITH gone AS (
    DELETE FROM metasync.change WHERE id = ANY ($1::bigint[]) AND target = ANY ($2::bigint[]) RETURNING target, batch
)
SELECT
    target,
    CASE WHEN batch IS NOT NULL THEN (SELECT name FROM metasync.batch WHERE number = gone.batch) END AS batch,
    count(*) AS changes
FROM gone
GROUP BY target, gone.batch;

-- name: count
-- $1 ids of changes, $2 numbers of targets: counts the pending changes of these targets
SELECT count(*) FROM metasync.change WHERE id = ANY ($1::bigint[]) AND target = ANY ($2::bigint[]);

-- name: let_go
-- $1 numbers of targets; ends their leases. A target without urgent changes is no longer urgent, and due from now on:
-- claims do not look again where they have looked before.
WITH found AS MATERIALIZED (
    SELECT
        number,
        lease IS NOT NULL AS has_lease,
        CASE WHEN urgent THEN (
            SELECT change.urgent FROM metasync.change WHERE change.target = target.number AND change.urgent LIMIT 1
        ) IS NULL ELSE false END AS was_urgent
    FROM metasync.target
    WHERE number = ANY ($1::bigint[]) AND (urgent OR lease IS NOT NULL)
)
UPDATE metasync.target
SET
    lease = NULL,
    urgent = urgent AND NOT number = ANY (ARRAY(SELECT number FROM found WHERE was_urgent)),
    visible_at = CASE
        WHEN number = ANY (ARRAY(SELECT number FROM found WHERE was_urgent))
        THEN greatest(visible_at, statement_timestamp())
        ELSE visible_at
    END
WHERE number = ANY (ARRAY(SELECT number FROM found WHERE has_lease OR was_urgent));
