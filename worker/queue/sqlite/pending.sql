-- Selected pending changes. Each statement returns a piece: the last change examined, how many were, and those among them
-- that meet all conditions: so a piece is short even if few do.

-- name: by_change_id
SELECT json_array(max(id), count(*), json_group_array(id) FILTER (
    WHERE (:completion_id IS NULL OR target = (SELECT number FROM target WHERE completion_id = :completion_id))
        AND (:batch IS NULL OR batch = (SELECT number FROM batch WHERE name = :batch))
))
FROM change
WHERE change_id = :change_id;

-- name: by_completion
SELECT json_array(max(id), count(*), json_group_array(id) FILTER (
    WHERE :batch IS NULL OR batch = (SELECT number FROM batch WHERE name = :batch)
))
FROM (
    SELECT id, batch
    FROM change
    WHERE target = (SELECT number FROM target WHERE completion_id = :completion_id) AND id > :after
    ORDER BY id
    LIMIT :limit
);

-- name: by_batch
SELECT json_array(max(id), count(*), json_group_array(id) FILTER (
    WHERE batch = (SELECT number FROM batch WHERE name = :batch)
))
FROM (
    SELECT id, batch
    FROM change
    WHERE id > max(:after, (SELECT first_change - 1 FROM batch WHERE name = :batch))
        AND id <= (SELECT last_change FROM batch WHERE name = :batch)
    ORDER BY id
    LIMIT :limit
);

-- name: every
-- From a target and a change of it on.
SELECT json_group_array(json_array(target, id))
FROM (
    SELECT target, id FROM change WHERE (target, id) > (:target, :after) ORDER BY target, id LIMIT :limit
);

-- name: changes
-- numbers: JSON array, whose order is kept
SELECT json_group_array(json_array(
    change.id, target.completion_id, change.change_id, change.mode, change.metadata, change.enqueued_at + :ahead,
    change.trials, change.as_of, (SELECT batch.name FROM batch WHERE batch.number = change.batch)
))
FROM json_each(:numbers) AS selected
CROSS JOIN change ON change.id = selected.value
CROSS JOIN target ON target.number = change.target;

-- name: free
-- The changes among them that no worker holds, and their targets.
SELECT json_array(json_group_array(change.id), json_group_array(DISTINCT target.number))
FROM json_each(:numbers) AS selected
CROSS JOIN change ON change.id = selected.value
CROSS JOIN target ON target.number = change.target
WHERE target.lease IS NULL OR target.visible_at <= :now;

-- name: count_in_batches
UPDATE batch
SET withdrawn = withdrawn + gone.changes, first_done_at = coalesce(first_done_at, :now), last_done_at = :now
FROM (
    SELECT change.batch, count(*) AS changes
    FROM json_each(:numbers) AS selected
    CROSS JOIN change ON change.id = selected.value
    WHERE change.batch IS NOT NULL
    GROUP BY change.batch
) AS gone
WHERE batch.number = gone.batch;

-- name: count_in_targets
-- An expired lease ends: its worker's late settlement must not name deleted changes.
UPDATE target
SET pending = pending - gone.changes, lease = NULL
FROM (
    SELECT change.target, count(*) AS changes
    FROM json_each(:numbers) AS selected
    CROSS JOIN change ON change.id = selected.value
    GROUP BY change.target
) AS gone
WHERE target.number = gone.target;

-- name: finish
-- targets: JSON array of numbers
DELETE FROM target WHERE number IN (SELECT value FROM json_each(:targets)) AND pending = 0;
