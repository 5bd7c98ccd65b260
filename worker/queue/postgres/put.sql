-- The planner's idea of a table's size may be off by any amount. A vacuum may find a table empty and be unable to give
-- its pages back. Then the planner takes it for empty until the next vacuum, and a join would read the whole table. So
-- each row of a set is looked up in a LATERAL subquery with OFFSET 0. It is planned alone, and can only use the index.
-- Updates and deletes take their keys from an array.

-- name: begin
-- $1 completion ids, each once; $2 whether the changes are urgent, $3 the batch's name or NULL; returns the batch's
-- number
SELECT metasync.begin_append($1::text[], $2::boolean, $3::text);

-- name: begin_named
-- for changes with change_ids, one element a change: $1 completion ids, $2 and $3 as above, $4 change ids; returns the
-- batch's number, and the change ids that were settled lately, whose completions are left out
WITH given AS MATERIALIZED (
    SELECT
        completion_id,
        change_id,
        position,
        CASE WHEN change_id IS NOT NULL THEN (
            SELECT hash FROM metasync.settled WHERE hash = metasync.hash(change_id)
        ) END IS NOT NULL AS is_settled
    FROM unnest($1::text[], $4::text[]) WITH ORDINALITY AS given (completion_id, change_id, position)
)
SELECT
    metasync.begin_append(
        ARRAY(
            SELECT completion_id FROM given WHERE NOT is_settled GROUP BY completion_id ORDER BY min(position)
        ),
        $2::boolean,
        $3::text
    ) AS batch,
    ARRAY(SELECT change_id FROM given WHERE is_settled) AS settled;

-- name: append
-- $1 completion ids, $2 change ids, $3 modes, $4 metadata, $5 as_of, each an array with one element a change; $6 the
-- number of their batch or NULL, $7 whether they are urgent
-- Ids follow the order of the changes. Rows are written in the order of change_ids, so that two calls with common
-- change_ids do not wait for each other.
INSERT INTO metasync.change (id, target, change_id, mode, metadata, enqueued_at, as_of, batch, urgent)
SELECT id, target, change_id, mode, metadata::json, statement_timestamp(), as_of, $6::bigint, $7::boolean
FROM (
    SELECT nextval('metasync.change_id_seq') AS id, ordered.*
    FROM (
        SELECT *
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::float8[])
            WITH ORDINALITY AS given (completion_id, change_id, mode, metadata, as_of, position)
        ORDER BY position
    ) AS ordered
) AS numbered
CROSS JOIN LATERAL (
    SELECT target FROM metasync.completion WHERE completion.completion_id = numbered.completion_id OFFSET 0
) AS found
ORDER BY change_id COLLATE "C" NULLS FIRST, id
ON CONFLICT (change_id) WHERE change_id IS NOT NULL DO NOTHING;

-- name: append_to_batch
-- as above; also notes in the batch how many changes were appended, and returns that number: NULL for none
WITH appended AS (
    {append}
    RETURNING id
)
INSERT INTO metasync.batch_put (batch, first_change, last_change, changes, put_at)
SELECT $6::bigint, min(id), max(id), count(*), statement_timestamp()
FROM appended
HAVING count(*) > 0
RETURNING changes;

-- name: hurry
-- $1 completion ids; marks the targets of urgent changes, and locks them in the common order. It locks urgent targets,
-- too: a worker that does not see our change may be about to mark one as not urgent. Only the locked row shows what it
-- is.
WITH found AS MATERIALIZED (
    SELECT locked.number, locked.urgent
    FROM (
        SELECT target FROM metasync.completion WHERE completion_id = ANY ($1::text[]) ORDER BY completion_id
    ) AS completion
    CROSS JOIN LATERAL (
        SELECT number, urgent
        FROM metasync.target
        WHERE number = completion.target AND (
            SELECT true FROM metasync.change WHERE change.target = target.number AND change.urgent LIMIT 1
        )
        FOR NO KEY UPDATE OF target
    ) AS locked
)
UPDATE metasync.target
SET urgent = true, visible_at = greatest(visible_at, statement_timestamp())
WHERE number = ANY (ARRAY(SELECT number FROM found WHERE NOT urgent));

-- name: suspects
-- $1 to $4 as above, $5 the number of their batch or NULL; returns changes that are pending under a given change_id, in
-- another batch or with other content, by positions from 0. All columns but the position are NULL if nothing is pending
-- any more: the change was done a moment ago.
SELECT
    position - 1 AS position,
    target.completion_id,
    change.mode,
    change.metadata::text,
    change.batch IS DISTINCT FROM $5::bigint AS is_elsewhere,
    CASE WHEN change.batch IS NOT NULL THEN (SELECT name FROM metasync.batch WHERE number = change.batch) END AS batch
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
    WITH ORDINALITY AS given (completion_id, change_id, mode, metadata, position)
LEFT JOIN LATERAL (
    SELECT * FROM metasync.change WHERE change.change_id = given.change_id OFFSET 0
) AS change ON true
LEFT JOIN LATERAL (
    SELECT completion_id FROM metasync.target WHERE target.number = change.target OFFSET 0
) AS target ON true
WHERE given.change_id IS NOT NULL AND (
    change.batch IS DISTINCT FROM $5::bigint
    OR (target.completion_id, change.mode, change.metadata::text)
        IS DISTINCT FROM (given.completion_id, given.mode, given.metadata)
)
ORDER BY position;
