-- name: lease
-- $1 most targets, $2 the floor (NULL: none), $3 seconds, $4 owner; {kind} is written out, so that the planner knows
-- the index
-- Below the floor are only rows that were claimed before. They are deleted, but stay in the index until a vacuum, and
-- no vacuum removes them while any old transaction is open.
WITH due AS MATERIALIZED (
    SELECT number, visible_at, lease
    FROM metasync.target
    WHERE {kind} AND visible_at >= coalesce($2::timestamptz, '-infinity') AND visible_at <= statement_timestamp()
    ORDER BY visible_at, number
    LIMIT $1::integer
    FOR NO KEY UPDATE SKIP LOCKED
),
leased AS (
    UPDATE metasync.target
    SET
        visible_at = statement_timestamp() + make_interval(secs => $3::float8),
        lease = (SELECT metasync.next_lease()),
        owner = $4::text
    WHERE number = ANY (ARRAY(SELECT number FROM due)) -- a join might read the whole table: see put.sql
    RETURNING number, completion_id, lease
)
SELECT
    number, completion_id, lease,
    NULL::bigint[] AS numbers, NULL::timestamptz[] AS were_visible_at, NULL::bigint[] AS were_leases,
    NULL::timestamptz AS looked_at, NULL::float8 AS claimed_at, NULL::bigint[] AS look
FROM leased
UNION ALL
-- The last row: the state of the targets before, oldest first. `look` is for the floor: the number of this transaction,
-- the number from which on none had started, and the numbers below it of those that had not ended.
SELECT
    NULL, NULL, NULL,
    ARRAY(SELECT number FROM due), ARRAY(SELECT visible_at FROM due), ARRAY(SELECT lease FROM due),
    statement_timestamp(), extract(epoch FROM statement_timestamp())::float8,
    ARRAY[pg_current_xact_id()::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint]
    || ARRAY(SELECT pg_snapshot_xip(pg_current_snapshot())::text::bigint);

-- name: newest
-- $1 the floor (NULL: none), $2 how many; returns numbers, the best first
-- First those that came last, as what was tried and put back is due later than what came meanwhile; then the last due ones,
-- since among all, a last one that is due would take a long search.
SELECT number
FROM (
    SELECT number, NULL AS due_at
    FROM (
        SELECT number, visible_at, urgent FROM metasync.target ORDER BY number DESC LIMIT $2::integer
    ) AS recent
    WHERE NOT urgent AND visible_at <= statement_timestamp()
    UNION ALL
    (
        SELECT number, visible_at
        FROM metasync.target
        WHERE NOT urgent AND visible_at >= coalesce($1::timestamptz, '-infinity') AND visible_at <= statement_timestamp()
        ORDER BY visible_at DESC, number DESC
        LIMIT $2::integer
    )
) AS found
ORDER BY due_at DESC NULLS FIRST, number DESC;

-- name: middle
-- $1 the floor, $2 JSON array of shares; returns numbers, the best first
-- An index cannot be asked for its middle. So this looks up a few targets at even distances: by time and number,
-- between the oldest and the newest due; and by number alone, from the oldest on. Time alone fails, since changes that
-- came at once take up little time; numbers alone fail, since finished changes leave gaps. The median of the sample is
-- far from both ends.
WITH oldest AS MATERIALIZED (
    SELECT visible_at, number
    FROM metasync.target
    WHERE NOT urgent AND visible_at >= coalesce($1::timestamptz, '-infinity') AND visible_at <= statement_timestamp()
    ORDER BY visible_at, number
    LIMIT 1
),
newest AS MATERIALIZED (
    SELECT visible_at, number
    FROM metasync.target
    WHERE NOT urgent AND visible_at >= coalesce($1::timestamptz, '-infinity') AND visible_at <= statement_timestamp()
    ORDER BY visible_at DESC, number DESC
    LIMIT 1
),
step AS MATERIALIZED (SELECT share::float8 FROM json_array_elements_text($2::json) AS share),
last AS MATERIALIZED (SELECT pg_sequence_last_value('metasync.completion_target_seq'::regclass) AS number),
sample AS (
    SELECT found.*
    FROM oldest, newest, step, LATERAL (
        SELECT target.visible_at, target.number, target.urgent
        FROM metasync.target
        WHERE NOT urgent AND (target.visible_at, target.number) >= (
            oldest.visible_at + (newest.visible_at - oldest.visible_at) * share,
            oldest.number + ((newest.number - oldest.number) * share)::bigint
        )
        ORDER BY target.visible_at, target.number
        LIMIT 1
    ) AS found
    UNION
    SELECT found.*
    FROM oldest, last, step, LATERAL (
        SELECT target.visible_at, target.number, target.urgent
        FROM metasync.target
        WHERE target.number >= oldest.number + ((last.number - oldest.number) * share)::bigint
        ORDER BY target.number
        LIMIT 1
    ) AS found
)
SELECT number
FROM (
    SELECT number, row_number() OVER (ORDER BY visible_at, number) - 1 AS position, count(*) OVER () AS due
    FROM sample
    WHERE visible_at <= statement_timestamp() AND NOT urgent
) AS ordered
ORDER BY abs(position - due / 2), position;

-- name: lease_one
-- $1 numbers of targets: leases the first one that is due, not urgent, and not locked; $2 seconds, $3 owner
WITH due AS MATERIALIZED (
    SELECT target.number, target.visible_at, target.lease
    FROM (
        SELECT number FROM unnest($1::bigint[]) WITH ORDINALITY AS wanted (number, position) ORDER BY position
    ) AS wanted
    CROSS JOIN LATERAL (
        SELECT number, visible_at, lease
        FROM metasync.target
        WHERE target.number = wanted.number AND visible_at <= statement_timestamp() AND NOT urgent
        FOR NO KEY UPDATE OF target SKIP LOCKED
    ) AS target
    LIMIT 1
)
UPDATE metasync.target
SET
    visible_at = statement_timestamp() + make_interval(secs => $2::float8),
    lease = (SELECT metasync.next_lease()),
    owner = $3::text
WHERE number = (SELECT number FROM due)
RETURNING
    number,
    completion_id,
    lease,
    (SELECT visible_at FROM due) AS was_visible_at,
    (SELECT lease FROM due) AS was_lease,
    extract(epoch FROM statement_timestamp())::float8 AS claimed_at;

-- name: changes
-- $1 numbers of targets, oldest due first, $2 their completion ids, $3 most changes of each, $4 most changes of all, $5
-- bytes of metadata, which only the last change may exceed
SELECT
    id, completion_id, change_id, mode, metadata, extract(epoch FROM enqueued_at)::float8, trials, as_of,
    CASE WHEN batch IS NOT NULL THEN (SELECT name FROM metasync.batch WHERE number = carried.batch) END
FROM (
    SELECT *, sum(size_bytes) OVER (ORDER BY position, id ROWS UNBOUNDED PRECEDING) - size_bytes AS bytes_before
    FROM (
        SELECT claimed.position, claimed.completion_id, change.*
        FROM (
            SELECT * FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS claimed (target, completion_id, position)
            ORDER BY position -- so that rows after the last change are not read only to be sorted
        ) AS claimed
        CROSS JOIN LATERAL (
            SELECT * FROM metasync.change WHERE change.target = claimed.target ORDER BY id LIMIT $3::integer
        ) AS change
        ORDER BY claimed.position, change.id
        LIMIT $4::bigint
    ) AS carried
) AS carried
WHERE bytes_before <= $5::bigint
ORDER BY position, id;

-- name: put_back
-- $1 numbers of targets, $2 JSON object of their former visible_at and leases: these leases ran out, but hold until the
-- next one, $3 seconds until a target without changes is looked at again
UPDATE metasync.target
SET
    visible_at = CASE
        WHEN (SELECT true FROM metasync.change WHERE change.target = target.number LIMIT 1)
        THEN ($2::jsonb -> number::text ->> 0)::timestamptz
        ELSE statement_timestamp() + make_interval(secs => $3::float8)
    END,
    lease = ($2::jsonb -> number::text ->> 1)::bigint
WHERE number = ANY ($1::bigint[]);

-- name: held
-- $1 completion ids, $2 leases: the positions, from 0, of the claims whose lease holds, and the numbers of their targets,
-- which are locked in the common order
SELECT claim.position - 1 AS position, target.number
FROM (
    SELECT *
    FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS claim (completion_id, lease, position)
    ORDER BY completion_id COLLATE "C"
) AS claim
CROSS JOIN LATERAL (
    SELECT target FROM metasync.completion WHERE completion.completion_id = claim.completion_id OFFSET 0
) AS completion
CROSS JOIN LATERAL (
    SELECT number
    FROM metasync.target
    WHERE target.number = completion.target AND target.lease = claim.lease
    FOR NO KEY UPDATE OF target
) AS target;

-- name: hold
-- $1 completion ids, $2 leases; returns the claims as held, and the number of the transaction
SELECT position, number, pg_current_xact_id()::text AS transaction FROM ({held}) AS held;

-- name: extend
-- $1 completion ids, $2 leases, $3 seconds; returns the claims as held
WITH held AS MATERIALIZED ({held}),
extended AS (
    UPDATE metasync.target
    SET visible_at = statement_timestamp() + make_interval(secs => $3::float8)
    WHERE number = ANY (ARRAY(SELECT number FROM held))
)
SELECT position FROM held;

-- name: heal
-- No lease and no delay is longer than an hour: what is due in more than two was put off by a clock that was ahead. It is
-- due now. But the worker of a lease may still be at work: it keeps what a lease may last. Rows that are locked are left to
-- a later call, since this one locks in another order than others.
UPDATE metasync.target
SET visible_at = statement_timestamp() + CASE WHEN lease IS NULL THEN interval '0' ELSE interval '1 hour' END
WHERE number = ANY (ARRAY(
    SELECT number
    FROM (
        SELECT number
        FROM metasync.target
        WHERE NOT urgent AND visible_at > statement_timestamp() + interval '2 hours'
        LIMIT 1000
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS usual
    UNION ALL
    SELECT number
    FROM (
        SELECT number
        FROM metasync.target
        WHERE urgent AND visible_at > statement_timestamp() + interval '2 hours'
        LIMIT 1000
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS urgent
));

-- name: release
-- $1 completion ids, $2 leases
WITH held AS MATERIALIZED ({held})
UPDATE metasync.target
SET visible_at = statement_timestamp(), lease = NULL
WHERE number = ANY (ARRAY(SELECT number FROM held));
