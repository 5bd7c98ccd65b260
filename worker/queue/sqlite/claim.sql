-- name: heal
-- No lease and no delay is that long: such a due time comes from a wrong clock. The target is due now.
UPDATE target SET visible_at = :now WHERE urgent IN (0, 1) AND visible_at > :furthest;

-- name: oldest
WITH due (number, completion_id, pending) AS MATERIALIZED (
    SELECT number, completion_id, pending
    FROM target
    WHERE urgent = 0 AND visible_at <= :now
    ORDER BY visible_at, number
    LIMIT :limit
)
{their_changes};

-- name: urgent
WITH due (number, completion_id, pending) AS MATERIALIZED (
    SELECT number, completion_id, pending
    FROM target
    WHERE urgent = 1 AND visible_at <= :now
    ORDER BY visible_at, number
    LIMIT :limit
)
{their_changes};

-- name: newest
-- The last that came, as what was tried and put back is due later than what came meanwhile. Among all, a last one that is
-- due would take a long search: so it is the last due one where none of the last :recent is due.
WITH due (number, completion_id, pending) AS MATERIALIZED (
    SELECT * FROM (
        SELECT number, completion_id, pending
        FROM (SELECT * FROM target ORDER BY number DESC LIMIT :recent)
        WHERE urgent = 0 AND visible_at <= :now
        ORDER BY number DESC
        LIMIT 1
    )
    UNION ALL
    SELECT * FROM (
        SELECT number, completion_id, pending
        FROM target
        WHERE urgent = 0 AND visible_at <= :now
        ORDER BY visible_at DESC, number DESC
        LIMIT 1
    )
    LIMIT 1
)
{their_changes};

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
found AS MATERIALIZED (
    SELECT
        target.number, completion_id, pending, row_number() OVER (ORDER BY visible_at, target.number) - 1 AS position
    FROM sample
    CROSS JOIN target ON target.number = sample.number
    WHERE target.urgent = 0 AND visible_at <= :now
),
due (number, completion_id, pending) AS MATERIALIZED (
    SELECT number, completion_id, pending FROM found WHERE position = (SELECT count(*) FROM found) / 2
)
{their_changes};

-- name: their_changes
-- The changes of the due targets, whose order is kept, the oldest of each first, as the index has them. :changes, :bytes:
-- what one call may carry; only the last change may exceed the bytes; ahead: of the queue's time.
-- Nearly always all fit. To find where to stop takes as long as the rest, and so is done only if they do not. What is
-- beyond the limit is not read: only the length of its text is.
SELECT CAST(CASE
    WHEN
        (SELECT max(pending) > :changes_per_claim FROM due)
        OR (
            SELECT count(*) = :changes OR sum(bytes) > :bytes
            FROM (
                SELECT octet_length(change.metadata) AS bytes
                FROM due
                CROSS JOIN change INDEXED BY change_target ON change.target = due.number
                LIMIT :changes
            )
        )
    THEN (
        SELECT json_group_array(json_array(
            change.id, carried.completion_id, change.change_id, change.mode, change.metadata,
            change.enqueued_at + :ahead, change.trials, change.as_of,
            (SELECT batch.name FROM batch WHERE batch.number = change.batch)
        ))
        FROM (
            SELECT id, completion_id, sum(bytes) OVER (ROWS UNBOUNDED PRECEDING) - bytes AS bytes_before
            FROM (
                SELECT change.id, due.completion_id, octet_length(change.metadata) AS bytes
                FROM due
                CROSS JOIN change ON change.id IN (
                    SELECT id FROM change AS mine WHERE mine.target = due.number ORDER BY id LIMIT :changes_per_claim
                )
                LIMIT :changes
            )
        ) AS carried
        CROSS JOIN change ON change.id = carried.id
        WHERE carried.bytes_before <= :bytes
    )
    ELSE (
        SELECT json_group_array(json_array(
            change.id, due.completion_id, change.change_id, change.mode, change.metadata,
            change.enqueued_at + :ahead, change.trials, change.as_of,
            (SELECT batch.name FROM batch WHERE batch.number = change.batch)
        ))
        FROM due
        CROSS JOIN change INDEXED BY change_target ON change.target = due.number
    )
END AS BLOB);

-- name: next_lease
-- now_us: microseconds of the queue's time. A restored file may not know the last leases: a counter alone would give their
-- numbers again, but the time has moved on.
UPDATE counter SET value = max(value + 1, :now_us) WHERE name = 'lease' RETURNING value;

-- name: lease
-- changes: JSON array, one of each claim
UPDATE target
SET visible_at = :visible_at, lease = :lease, owner = :owner
WHERE number IN (
    SELECT change.target FROM json_each(:changes) AS claimed CROSS JOIN change ON change.id = claimed.value
);

-- name: targets
-- changes: JSON array, one of each claim; gives their targets as columns, NULL for a change that is no longer pending
-- A target is found by a change of it: by completion id, each would be on another page. While a lease holds, none of what
-- was claimed under it goes.
SELECT json_array(
    json_group_array(target.number),
    json_group_array(target.lease),
    json_group_array(target.pending),
    json_group_array(target.urgent)
)
FROM json_each(:changes) AS claim
LEFT JOIN change ON change.id = claim.value
LEFT JOIN target ON target.number = change.target;

-- name: extend
-- targets: JSON array of numbers
UPDATE target SET visible_at = :visible_at WHERE number IN (SELECT value FROM json_each(:targets));

-- name: release
UPDATE target
SET visible_at = :now, lease = NULL
FROM json_each(:claims) AS claim
WHERE target.completion_id = claim.value ->> 0 AND target.lease = claim.value ->> 1;
