-- name: settled
-- $1 change ids; returns those that were settled lately
SELECT change_id
FROM unnest($1::text[]) AS given (change_id)
CROSS JOIN LATERAL (SELECT FROM metasync.settled WHERE settled.hash = metasync.hash(given.change_id) OFFSET 0) AS found;

-- name: newest_as_of
-- $1 completion ids
SELECT completion_id, newest.as_of
FROM unnest($1::text[]) AS given (completion_id)
CROSS JOIN LATERAL (
    SELECT as_of FROM metasync.newest WHERE newest.hash = metasync.hash(given.completion_id) OFFSET 0
) AS newest;

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
-- $1 seconds to keep them, $2 how many to keep at most, $3 how many to delete at most; from {table}
-- A row that is remembered again gets a new number. So numbers say which row is the oldest, but not how many rows there
-- are. To count them would take a second, and the server's statistics are good enough.
WITH oldest AS MATERIALIZED (
    SELECT number, settled_at FROM metasync.{table} ORDER BY number LIMIT $3::integer
)
DELETE FROM metasync.{table}
WHERE number = ANY (ARRAY( -- a row that is remembered again meanwhile has a new number
    SELECT number
    FROM oldest
    WHERE settled_at < statement_timestamp() - make_interval(secs => $1::float8)
        OR number <= (SELECT max(number) FROM metasync.{table}) - $2::bigint
        AND pg_stat_get_live_tuples('metasync.{table}'::regclass) > $2
));
