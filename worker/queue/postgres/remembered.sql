-- name: settled
-- $1 change ids; gives those that were settled lately
SELECT change_id
FROM unnest($1::text[]) AS given (change_id)
JOIN metasync.settled ON settled.hash = metasync.hash(given.change_id);

-- name: newest_as_of
-- $1 completion ids
SELECT completion_id, newest.as_of
FROM unnest($1::text[]) AS given (completion_id)
JOIN metasync.newest ON newest.hash = metasync.hash(given.completion_id);

-- name: remember_change_ids
-- $1 change ids
INSERT INTO metasync.settled (hash, settled_at)
SELECT hash, statement_timestamp()
FROM (SELECT DISTINCT metasync.hash(each) AS hash FROM unnest($1::text[]) AS each) AS given
ORDER BY hash
ON CONFLICT (hash) DO UPDATE SET number = excluded.number, settled_at = excluded.settled_at;

-- name: remember_as_of
-- arrays with one element a completion: $1 completion ids, $2 as_of
INSERT INTO metasync.newest AS newest (hash, settled_at, as_of)
SELECT hash, statement_timestamp(), max(as_of)
FROM (
    SELECT metasync.hash(completion_id) AS hash, as_of
    FROM unnest($1::text[], $2::float8[]) AS given (completion_id, as_of)
) AS given
GROUP BY hash
ORDER BY hash
ON CONFLICT (hash) DO UPDATE SET
    number = excluded.number,
    settled_at = excluded.settled_at,
    as_of = greatest(newest.as_of, excluded.as_of);

-- name: forget
-- $1 seconds to keep it, $2 how many to keep at most, $3 how many to let go of; of a {table}
-- What is remembered anew has a new number: where that happens often, numbers tell who is the oldest, and not how many there
-- are. To count would take a second, and the server knows it well enough.
WITH oldest AS MATERIALIZED (
    SELECT number, hash, settled_at FROM metasync.{table} ORDER BY number LIMIT $3::integer
)
DELETE FROM metasync.{table}
USING oldest
WHERE {table}.hash = oldest.hash
    AND {table}.number = oldest.number -- else it was remembered anew
    AND (
        oldest.settled_at < statement_timestamp() - make_interval(secs => $1::float8)
        OR oldest.number <= (SELECT max(number) FROM metasync.{table}) - $2::bigint
        AND pg_stat_get_live_tuples('metasync.{table}'::regclass) > $2
    );
