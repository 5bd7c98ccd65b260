-- name: heal
-- No lease and no delay is that long: such a due time comes from a wrong clock. The target is due now.
UPDATE target SET visible_at = :now WHERE urgent IN (0, 1) AND visible_at > :furthest;

-- name: oldest
SELECT json_group_array(json_array(number, completion_id))
FROM (
    SELECT number, completion_id
    FROM target
    WHERE urgent = 0 AND visible_at <= :now
    ORDER BY visible_at, number
    LIMIT :limit
);

-- name: urgent
SELECT json_group_array(json_array(number, completion_id))
FROM (
    SELECT number, completion_id
    FROM target
    WHERE urgent = 1 AND visible_at <= :now
    ORDER BY visible_at, number
    LIMIT :limit
);

-- name: newest
SELECT json_group_array(json_array(number, completion_id))
FROM (
    SELECT number, completion_id
    FROM target
    WHERE urgent = 0 AND visible_at <= :now
    ORDER BY visible_at DESC, number DESC
    LIMIT 1
);

-- name: middle
-- An index cannot tell its middle. So a few targets at even distances are looked up: by time and number between the
-- oldest and the newest due one, and by number alone from the oldest on. A burst spans little time, and finished
-- changes leave gaps. The middle one of them is far from both ends.
WITH
oldest AS MATERIALIZED (
    SELECT visible_at, number FROM target WHERE urgent = 0 AND visible_at <= :now ORDER BY visible_at, number LIMIT 1
),
newest AS MATERIALIZED (
    SELECT visible_at, number
    FROM target
    WHERE urgent = 0 AND visible_at <= :now
    ORDER BY visible_at DESC, number DESC
    LIMIT 1
),
last AS MATERIALIZED (SELECT max(number) AS number FROM target),
point AS MATERIALIZED (
    SELECT
        oldest.visible_at + (newest.visible_at - oldest.visible_at) * step.value AS visible_at,
        oldest.number + (newest.number - oldest.number) * step.value AS number
    FROM json_each(:steps) AS step, oldest, newest
),
sample (number) AS (
    SELECT coalesce(
        (
            SELECT target.number
            FROM target
            WHERE target.urgent = 0 AND target.visible_at = point.visible_at AND target.number >= point.number
            ORDER BY target.number
            LIMIT 1
        ),
        (
            SELECT target.number
            FROM target
            WHERE target.urgent = 0 AND target.visible_at > point.visible_at
            ORDER BY target.visible_at, target.number
            LIMIT 1
        )
    )
    FROM point
    UNION
    SELECT (
        SELECT target.number
        FROM target
        WHERE target.number >= oldest.number + (last.number - oldest.number) * step.value
        ORDER BY target.number
        LIMIT 1
    )
    FROM json_each(:steps) AS step, oldest, last
),
due AS MATERIALIZED (
    SELECT target.number, completion_id, row_number() OVER (ORDER BY visible_at, target.number) - 1 AS position
    FROM sample
    CROSS JOIN target ON target.number = sample.number
    WHERE target.urgent = 0 AND visible_at <= :now
)
SELECT json_group_array(json_array(number, completion_id))
FROM due
WHERE position = (SELECT count(*) FROM due) / 2;

-- name: changes
-- targets: JSON array of [number, completion_id], whose order is kept; ahead: of the queue's time; bytes, which only
-- the last change may exceed
-- Changes beyond the limit are not read: only the length of their text is.
SELECT json_group_array(json_array(
    change.id, carried.completion_id, change.change_id, change.mode, change.metadata, change.enqueued_at + :ahead,
    change.trials, change.as_of, (SELECT batch.name FROM batch WHERE batch.number = change.batch)
))
FROM (
    SELECT id, completion_id, sum(bytes) OVER (ROWS UNBOUNDED PRECEDING) - bytes AS bytes_before
    FROM (
        SELECT change.id, claimed.value ->> 1 AS completion_id, octet_length(change.metadata) AS bytes
        FROM json_each(:targets) AS claimed
        CROSS JOIN change ON change.id IN (
            SELECT id FROM change AS mine WHERE mine.target = claimed.value ->> 0 ORDER BY id LIMIT :changes_per_claim
        )
        LIMIT :changes
    )
) AS carried
CROSS JOIN change ON change.id = carried.id
WHERE carried.bytes_before <= :bytes;

-- name: next_lease
-- now_us: microseconds of the queue's time. A restored file may not know the last leases: a counter alone would give their
-- numbers again, but the time has moved on.
UPDATE counter SET value = max(value + 1, :now_us) WHERE name = 'lease' RETURNING value;

-- name: lease
-- targets: JSON array of numbers
UPDATE target
SET visible_at = :visible_at, lease = :lease, owner = :owner
WHERE number IN (SELECT value FROM json_each(:targets));

-- name: held
-- claims: JSON array of [completion_id, lease]; gives [position, number, pending, urgent] of those whose lease still holds
SELECT json_group_array(json_array(claim.key, target.number, target.pending, target.urgent))
FROM json_each(:claims) AS claim
CROSS JOIN target ON target.completion_id = claim.value ->> 0 AND target.lease = claim.value ->> 1;

-- name: extend
UPDATE target
SET visible_at = :visible_at
FROM json_each(:claims) AS claim
WHERE target.completion_id = claim.value ->> 0 AND target.lease = claim.value ->> 1;

-- name: release
UPDATE target
SET visible_at = :now, lease = NULL
FROM json_each(:claims) AS claim
WHERE target.completion_id = claim.value ->> 0 AND target.lease = claim.value ->> 1;
