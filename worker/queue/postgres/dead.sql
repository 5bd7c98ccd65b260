-- Four ways to the first numbers of a stretch, each along the index that fits.
-- $1 and $2 are the numbers between which to look, the second included; $3 the most letters.

-- name: by_number
-- $4 numbers, $5 completion id or NULL, $6 reason or NULL
SELECT number
FROM metasync.dead_letter
WHERE number > $1::bigint AND number <= $2::bigint
    AND number = ANY ($4::bigint[])
    AND ($5::text IS NULL OR completion_id = $5)
    AND ($6::text IS NULL OR reason = $6)
ORDER BY number
LIMIT $3::integer;

-- name: by_completion
-- $4 completion id, $5 reason or NULL
SELECT number
FROM metasync.dead_letter
WHERE number > $1::bigint AND number <= $2::bigint
    AND completion_id = $4::text
    AND ($5::text IS NULL OR reason = $5)
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
-- $1 numbers, $2 and $3 how many seconds ago they died, at least and at most
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
    extract(epoch FROM died_at)::float8 AS died_at
FROM metasync.dead_letter
WHERE number = ANY ($1::bigint[])
ORDER BY number;

-- name: hold
-- $1 numbers; gives the completions of those that are still there
SELECT number, completion_id
FROM metasync.dead_letter
WHERE number = ANY ($1::bigint[])
ORDER BY number
FOR UPDATE;

-- name: revive
-- $1 numbers; gives those that are changes again: of letters with one change_id the first, and none whose is pending
-- A join of the two at the end would compare each with each; what is asked for as a column is looked up in a hash.
WITH letter AS MATERIALIZED (
    SELECT nextval('metasync.change_id_seq') AS id, ordered.*
    FROM (SELECT * FROM metasync.dead_letter WHERE number = ANY ($1::bigint[]) ORDER BY number) AS ordered
),
revived AS (
    INSERT INTO metasync.change (id, target, change_id, mode, metadata, enqueued_at)
    SELECT id, target, change_id, mode, metadata, statement_timestamp()
    FROM letter
    JOIN metasync.completion USING (completion_id)
    ORDER BY change_id NULLS FIRST, id
    ON CONFLICT (change_id) DO NOTHING
    RETURNING id
)
SELECT number, id IN (SELECT id FROM revived) AS is_revived FROM letter;

-- name: delete
-- $1 numbers
DELETE FROM metasync.dead_letter WHERE number = ANY ($1::bigint[]) RETURNING number;

-- name: reasons
-- $1 the highest number to look at
SELECT reason, count(*) AS letters, max(number) AS newest
FROM metasync.dead_letter
WHERE number <= $1::bigint
GROUP BY reason;
