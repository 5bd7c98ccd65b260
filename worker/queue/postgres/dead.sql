-- Five ways to the first numbers of a stretch, each by the index that fits.
-- $1 and $2 bound the numbers, the second included; $3 most letters.

-- name: by_number
-- $4 numbers, $5 completion id or NULL, $6 reason or NULL, $7 batch or NULL
SELECT number
FROM metasync.dead_letter
WHERE number > $1::bigint AND number <= $2::bigint
    AND number = ANY ($4::bigint[])
    AND ($5::text IS NULL OR completion_id = $5)
    AND ($6::text IS NULL OR reason = $6)
    AND ($7::text IS NULL OR batch = $7)
ORDER BY number
LIMIT $3::integer;

-- name: by_completion
-- $4 completion id, $5 reason or NULL, $6 batch or NULL
SELECT number
FROM metasync.dead_letter
WHERE number > $1::bigint AND number <= $2::bigint
    AND completion_id = $4::text
    AND ($5::text IS NULL OR reason = $5)
    AND ($6::text IS NULL OR batch = $6)
ORDER BY number
LIMIT $3::integer;

-- name: by_batch
-- $4 batch, $5 reason or NULL
SELECT number
FROM metasync.dead_letter
WHERE number > $1::bigint AND number <= $2::bigint AND batch = $4::text AND ($5::text IS NULL OR reason = $5)
ORDER BY number
LIMIT $3::integer;

-- name: by_reason
-- $4 reason
SELECT number
FROM metasync.dead_letter
WHERE number > $1::bigint AND number <= $2::bigint AND reason = $4::text
ORDER BY number
LIMIT $3::integer;

-- name: by_all
SELECT number
FROM metasync.dead_letter
WHERE number > $1::bigint AND number <= $2::bigint
ORDER BY number
LIMIT $3::integer;

-- name: of_age
-- $1 numbers, $2 and $3 the least and the most seconds since they died
SELECT number
FROM metasync.dead_letter
WHERE number = ANY ($1::bigint[])
    AND extract(epoch FROM statement_timestamp() - died_at)::float8 BETWEEN $2::float8 AND $3::float8
ORDER BY number;

-- name: newest
SELECT coalesce(max(number), 0) FROM metasync.dead_letter;

-- name: letters
-- $1 numbers
SELECT
    number,
    completion_id,
    change_id,
    mode,
    metadata,
    extract(epoch FROM enqueued_at)::float8 AS enqueued_at,
    reason,
    status,
    error,
    request_id,
    attempts,
    extract(epoch FROM died_at)::float8 AS died_at,
    as_of,
    batch
FROM metasync.dead_letter
WHERE number = ANY ($1::bigint[])
ORDER BY number;

-- name: hold
-- $1 numbers; returns the letters that are still there, and whether they have to stay dead
SELECT
    number,
    completion_id,
    change_id,
    batch,
    coalesce(as_of < CASE WHEN as_of IS NOT NULL THEN (
        SELECT newest.as_of FROM metasync.newest WHERE hash = metasync.hash(dead_letter.completion_id)
    ) END, false) AS is_superseded,
    CASE WHEN change_id IS NOT NULL THEN (
        SELECT hash FROM metasync.settled WHERE hash = metasync.hash(dead_letter.change_id)
    ) END IS NOT NULL AS is_settled
FROM metasync.dead_letter
WHERE number = ANY ($1::bigint[])
ORDER BY number
FOR UPDATE OF dead_letter;

-- name: revive
-- arrays with one element a letter, in the order of numbers: $1 numbers, $2 numbers of batches or NULL; returns the ids
-- of all, and which became changes: of letters with one change_id the first, and none whose change_id is pending.
-- The last SELECT looks each id up in a hash. A join would compare each row with each.
WITH letter AS MATERIALIZED (
    SELECT nextval('metasync.change_id_seq') AS id, ordered.*
    FROM (
        SELECT dead_letter.number, completion_id, change_id, mode, metadata, as_of, given.batch
        FROM unnest($1::bigint[], $2::bigint[]) AS given (number, batch)
        CROSS JOIN LATERAL (
            SELECT * FROM metasync.dead_letter WHERE dead_letter.number = given.number OFFSET 0
        ) AS dead_letter
        ORDER BY dead_letter.number
    ) AS ordered
),
revived AS (
    INSERT INTO metasync.change (id, target, change_id, mode, metadata, enqueued_at, as_of, batch)
    SELECT id, target, change_id, mode, metadata, statement_timestamp(), as_of, batch
    FROM letter
    CROSS JOIN LATERAL (
        SELECT target FROM metasync.completion WHERE completion.completion_id = letter.completion_id OFFSET 0
    ) AS completion
    ORDER BY change_id NULLS FIRST, id
    ON CONFLICT (change_id) WHERE change_id IS NOT NULL DO NOTHING
    RETURNING id
)
SELECT number, id, batch, id IN (SELECT id FROM revived) AS is_revived FROM letter;

-- name: take_from_batch
-- arrays with one element a batch: $1 numbers, $2 how many of its letters are changes again, $3 and $4 the first and
-- the last of their ids. A batch that was deleted meanwhile counts no dead, and the changes are the first of a new one.
WITH revived AS MATERIALIZED (
    SELECT given.*, least(given.letters, greatest(total.dead, 0)) AS dead
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
        AS given (batch, letters, first_change, last_change)
    CROSS JOIN LATERAL (SELECT name FROM metasync.batch WHERE batch.number = given.batch OFFSET 0) AS batch
    CROSS JOIN LATERAL (SELECT dead FROM metasync.batch_total WHERE batch_total.name = batch.name LIMIT 1) AS total
),
put AS (
    INSERT INTO metasync.batch_put (batch, first_change, last_change, changes, put_at)
    SELECT batch, first_change, last_change, letters - dead, statement_timestamp() FROM revived
)
INSERT INTO metasync.batch_part AS before (batch, part, dead)
SELECT batch, pg_backend_pid() % 16, -dead FROM revived WHERE dead > 0 ORDER BY batch
ON CONFLICT (batch, part) DO UPDATE SET dead = before.dead + excluded.dead;

-- name: delete
-- $1 numbers
DELETE FROM metasync.dead_letter WHERE number = ANY ($1::bigint[]) RETURNING number;

-- name: reasons
-- $1 the highest number to count
SELECT reason, count(*) AS letters, max(number) AS newest
FROM metasync.dead_letter
WHERE number <= $1::bigint
GROUP BY reason;
