-- name: due
SELECT json_group_array(json_array(number, completion_id, attempts, pending))
FROM (
    SELECT number, completion_id, attempts, pending
    FROM target
    WHERE visible_at <= :now
    ORDER BY visible_at
    LIMIT :limit
);

-- name: next_lease
UPDATE counter SET value = value + 1 WHERE name = 'lease' RETURNING value;

-- name: lease
-- targets: JSON array of [number, completion_id]
UPDATE target
SET visible_at = :visible_at, lease = :lease, owner = :owner
WHERE number IN (SELECT value ->> 0 FROM json_each(:targets));

-- name: changes
-- targets: as above
SELECT json_group_array(json_array(
    change.id, claimed.value ->> 1, change.change_id, change.mode, change.metadata, change.enqueued_at
))
FROM json_each(:targets) AS claimed
CROSS JOIN change ON change.id IN (
    SELECT id FROM change AS mine WHERE mine.target = claimed.value ->> 0 ORDER BY id LIMIT :changes_per_claim
);

-- name: held
-- claims: JSON array of [completion_id, lease]; gives [position, number, pending] of those whose lease still holds
SELECT json_group_array(json_array(claim.key, target.number, target.pending))
FROM json_each(:claims) AS claim
CROSS JOIN target ON target.completion_id = claim.value ->> 0 AND target.lease = claim.value ->> 1;

-- name: extend
UPDATE target
SET visible_at = :visible_at
FROM json_each(:claims) AS claim
WHERE target.completion_id = claim.value ->> 0 AND target.lease = claim.value ->> 1;

-- name: release
UPDATE target
SET visible_at = :now, lease = NULL, owner = NULL
FROM json_each(:claims) AS claim
WHERE target.completion_id = claim.value ->> 0 AND target.lease = claim.value ->> 1;
