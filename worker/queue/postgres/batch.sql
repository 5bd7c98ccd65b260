-- name: plan_freely
-- There are few batches, and most of their rows have to be read.
SET LOCAL enable_hashjoin TO DEFAULT;
SET LOCAL enable_mergejoin TO DEFAULT;
SET LOCAL enable_seqscan TO DEFAULT;

-- name: batches
SELECT
    name,
    extract(epoch FROM created_at)::float8 AS created_at,
    changes,
    applied,
    unchanged,
    superseded,
    dead,
    withdrawn,
    extract(epoch FROM first_done_at)::float8 AS first_done_at,
    extract(epoch FROM last_done_at)::float8 AS last_done_at,
    extract(epoch FROM last_put_at)::float8 AS last_put_at
FROM metasync.batch_total
WHERE {which}
ORDER BY batch_total.created_at DESC, number DESC;

-- name: add_up
-- $1 number of rows; false if another transaction is doing it
SELECT metasync.add_up_batches($1::integer);

-- name: finished
-- $1 seconds since the last news of a batch, $2 how many batches to keep in any case, $3 how many to return
SELECT name
FROM (
    SELECT
        name,
        row_number() OVER (ORDER BY created_at DESC, number DESC) AS place,
        greatest(last_put_at, last_done_at) AS last_heard_of_at
    FROM metasync.batch_total
    WHERE pending <= 0
) AS batch
WHERE place > $2::bigint OR last_heard_of_at < statement_timestamp() - make_interval(secs => $1::float8)
ORDER BY place DESC
LIMIT $3::integer;

-- name: hold
-- $1 names; returns the batches that no producer adds to at the moment, and locks them
SELECT name
FROM (SELECT name FROM metasync.batch WHERE name = ANY ($1::text[]) ORDER BY number FOR UPDATE SKIP LOCKED) AS held
GROUP BY name
HAVING count(*) = (SELECT count(*) FROM metasync.batch WHERE batch.name = held.name);

-- name: forget
-- $1 names; deletes the batches that still have nothing pending
WITH finished AS MATERIALIZED (
    SELECT number
    FROM metasync.batch
    WHERE name = ANY (ARRAY(SELECT name FROM metasync.batch_total WHERE name = ANY ($1::text[]) AND pending <= 0))
),
parts AS (DELETE FROM metasync.batch_part WHERE batch IN (SELECT number FROM finished)),
puts AS (DELETE FROM metasync.batch_put WHERE batch IN (SELECT number FROM finished)),
gone AS (DELETE FROM metasync.batch WHERE number IN (SELECT number FROM finished) RETURNING name)
SELECT count(DISTINCT name) FROM gone;

-- name: numbers
-- $1 names; creates the batches that are gone
SELECT name, metasync.batch_number(name) AS number FROM unnest($1::text[]) AS name;

-- name: hold_for_letters
-- $1 numbers; another transaction that retries letters of these batches waits
SELECT FROM metasync.batch WHERE number = ANY ($1::bigint[]) ORDER BY number FOR NO KEY UPDATE;
