-- name: newest
SELECT coalesce(max(id), 0) FROM change;

-- name: newest_target
SELECT coalesce(max(number), 0) FROM target;

-- name: open
-- completion_ids: JSON array
INSERT INTO target (completion_id, visible_at, pending)
SELECT value, :now, 0
FROM json_each(:completion_ids)
WHERE true -- without it, ON CONFLICT would read as a join's ON
ON CONFLICT (completion_id) DO NOTHING;

-- name: append
-- changes: JSON array of [completion_id, change_id, mode, metadata, as_of]
-- LIMIT -1: without it, SQLite would write a value's JSON text anew wherever it is named.
INSERT INTO change (target, change_id, mode, metadata, enqueued_at, as_of, batch, urgent)
SELECT
    target.number, given.value ->> 1, given.value ->> 2, given.value -> 3, :now, given.value ->> 4, :batch, :urgent
FROM (SELECT value FROM json_each(:changes) LIMIT -1) AS given
CROSS JOIN target ON target.completion_id = given.value ->> 0
WHERE true -- as above
ON CONFLICT (change_id) WHERE change_id IS NOT NULL DO NOTHING;

-- name: suspects
-- changes: as above; gives position, completion_id, mode and metadata of what is pending under a change_id, and is another
-- text than what is given.
SELECT json_group_array(json_array(given.key, target.completion_id, change.mode, change.metadata))
FROM json_each(:changes) AS given
CROSS JOIN change ON change.change_id = given.value ->> 1
CROSS JOIN target ON target.number = change.target
WHERE target.completion_id <> given.value ->> 0
    OR change.mode <> given.value ->> 2
    OR change.metadata <> given.value -> 3;

-- name: elsewhere
-- changes, batch: as above; gives position and batch of what is pending under a change_id in another batch
SELECT json_group_array(json_array(given.key, batch.name))
FROM json_each(:changes) AS given
CROSS JOIN change ON change.change_id = given.value ->> 1
LEFT JOIN batch ON batch.number = change.batch
WHERE change.batch IS NOT :batch;

-- name: count
-- NOT INDEXED: in the order of the index on targets, every pending change would be examined.
UPDATE target
SET pending = pending + fresh.changes, urgent = max(urgent, :urgent)
FROM (SELECT target, count(*) AS changes FROM change NOT INDEXED WHERE id > :newest GROUP BY target) AS fresh
WHERE target.number = fresh.target;

-- name: forget_empty
-- Targets that were created only for duplicates.
DELETE FROM target WHERE number > :newest_target AND pending = 0;
