-- name: bury
-- deaths: JSON array of [number, reason, attempts, status, error, request_id]
INSERT INTO dead_letter (
    completion_id, change_id, mode, metadata, enqueued_at, reason, attempts, status, error, request_id, died_at,
    as_of, batch
)
SELECT
    target.completion_id, change.change_id, change.mode, change.metadata, change.enqueued_at + :ahead,
    death.value ->> 1, death.value ->> 2, death.value ->> 3, death.value ->> 4, death.value ->> 5, :unix,
    change.as_of, (SELECT batch.name FROM batch WHERE batch.number = change.batch)
FROM json_each(:deaths) AS death
CROSS JOIN change ON change.id = death.value ->> 0
CROSS JOIN target ON target.number = change.target;

-- name: remove
DELETE FROM change WHERE id IN (SELECT value FROM json_each(:numbers));

-- name: finish
DELETE FROM target WHERE number IN (SELECT value FROM json_each(:targets));

-- name: keep
-- targets: JSON array of [number, visible_at, pending]
UPDATE target
SET visible_at = kept.value ->> 1, lease = NULL, pending = kept.value ->> 2
FROM json_each(:targets) AS kept
WHERE target.number = kept.value ->> 0;

-- name: calm
-- targets: JSON array of numbers
-- +urgent: by number; the index on it would lead to all that are urgent.
UPDATE target
SET urgent = 0
WHERE number IN (SELECT value FROM json_each(:targets))
    AND +urgent = 1
    AND NOT EXISTS (SELECT 1 FROM change WHERE change.target = target.number AND change.urgent = 1);

-- name: keep_trials
-- trials: JSON array of [number of a change, text]
UPDATE change
SET trials = noted.value ->> 1
FROM json_each(:trials) AS noted
WHERE change.id = noted.value ->> 0;

-- name: count
INSERT INTO history (minute, applied, unchanged, dead, superseded, withdrawn)
VALUES (:minute, :applied, :unchanged, :dead, :superseded, :withdrawn)
ON CONFLICT (minute) DO UPDATE SET
    applied = applied + excluded.applied,
    unchanged = unchanged + excluded.unchanged,
    dead = dead + excluded.dead,
    superseded = superseded + excluded.superseded,
    withdrawn = withdrawn + excluded.withdrawn;
