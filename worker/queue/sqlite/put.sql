-- name: newest
SELECT coalesce(max(id), 0) FROM change;

-- name: append
-- changes: JSON array of [completion_id, change_id, mode, metadata]
INSERT INTO change (completion_id, change_id, mode, metadata, enqueued_at)
SELECT value ->> 0, value ->> 1, value ->> 2, value -> 3, :now
FROM json_each(:changes)
WHERE true -- without it, ON CONFLICT would read as a join's ON
ON CONFLICT (change_id) DO NOTHING;

-- name: announce
-- NOT INDEXED: in the order of the index on completion_id, every pending change would be looked at.
INSERT INTO target (completion_id, visible_at, pending)
SELECT completion_id, :now, count(*)
FROM change NOT INDEXED
WHERE id > :newest
GROUP BY completion_id
ORDER BY min(id)
ON CONFLICT (completion_id) DO UPDATE SET pending = pending + excluded.pending;
