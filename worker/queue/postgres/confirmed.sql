-- name: append
-- $1 completion ids and $2 maps, each a JSON array, $3 how many, $4 seconds to keep them, $5 how many to keep, $6 the
-- first number to look at for old rows
-- It deletes two old rows at most, so that no settlement pays for many. It returns the oldest row, and whether a row
-- had to go before its time.
WITH oldest AS MATERIALIZED (
    SELECT number, total, written_at <= statement_timestamp() - make_interval(secs => $4::float8) AS is_old
    FROM metasync.confirmed
    WHERE number >= $6::bigint
    ORDER BY number
    LIMIT 2
    FOR UPDATE SKIP LOCKED
),
written AS (
    INSERT INTO metasync.confirmed (written_at, total, completion_ids, maps)
    SELECT statement_timestamp(), max(nextval('metasync.confirmed_total')), $1::text, $2::text
    FROM generate_series(1, $3::integer)
    RETURNING total
),
gone AS (
    DELETE FROM metasync.confirmed
    WHERE number = ANY (ARRAY(
        SELECT number FROM oldest, written WHERE oldest.is_old OR oldest.total <= written.total - $5::bigint
    ))
    RETURNING number
)
SELECT
    (SELECT min(number) FROM oldest) AS oldest,
    EXISTS (SELECT FROM gone JOIN oldest USING (number) WHERE NOT is_old) AS is_cut_short;

-- name: expire
-- $1 seconds, $2 how many rows to look at
DELETE FROM metasync.confirmed
WHERE number = ANY (ARRAY(
    SELECT number FROM (
        SELECT number, written_at FROM metasync.confirmed ORDER BY number LIMIT $2::integer FOR UPDATE SKIP LOCKED
    ) AS oldest
    WHERE written_at <= statement_timestamp() - make_interval(secs => $1::float8)
));

-- name: news
-- $1 the last known number, $2 the numbers before it that were missing, $3 seconds; older rows, and the last known one,
-- come without their ids
SELECT
    number,
    extract(epoch FROM written_at)::float8 AS written_at,
    CASE
        WHEN number <> $1::bigint AND written_at > statement_timestamp() - make_interval(secs => $3::float8)
            THEN completion_ids
        ELSE '[]'
    END AS completion_ids
FROM (
    SELECT number, written_at, completion_ids FROM metasync.confirmed WHERE number >= $1::bigint
    UNION ALL
    SELECT number, written_at, completion_ids FROM metasync.confirmed WHERE number = ANY ($2::bigint[])
) AS news
ORDER BY number;

-- name: rows
-- $1 numbers, $2 bytes: of these rows, in their order, as many as have so many bytes of maps, and one more
SELECT number, completion_ids, maps
FROM metasync.confirmed
JOIN (
    SELECT number, sum(octet_length(maps)) OVER (ORDER BY number) - octet_length(maps) AS bytes_before
    FROM metasync.confirmed
    WHERE number = ANY ($1::bigint[])
) AS read USING (number)
WHERE bytes_before <= $2::integer
ORDER BY number;
