-- name: bury
-- deaths: JSON array of [number, reason, attempts, status, error, request_id]
INSERT INTO dead_letter (
    completion_id, change_id, mode, metadata, enqueued_at, reason, attempts, status, error, request_id, died_at
)
SELECT
    target.completion_id, change.change_id, change.mode, change.metadata, change.enqueued_at,
    death.value ->> 1, death.value ->> 2, death.value ->> 3, death.value ->> 4, death.value ->> 5, :now
FROM json_each(:deaths) AS death
CROSS JOIN change ON change.id = death.value ->> 0
CROSS JOIN target ON target.number = change.target;

-- name: remove
DELETE FROM change WHERE id IN (SELECT value FROM json_each(:numbers));

-- name: finish
DELETE FROM target WHERE number IN (SELECT value FROM json_each(:targets));

-- name: keep
-- targets: JSON array of [number, visible_at, attempts, pending, last_error]
UPDATE target
SET
    visible_at = kept.value ->> 1,
    lease = NULL,
    owner = NULL,
    attempts = kept.value ->> 2,
    pending = kept.value ->> 3,
    last_error = kept.value ->> 4
FROM json_each(:targets) AS kept
WHERE target.number = kept.value ->> 0;

-- name: count
INSERT INTO history (minute, applied, unchanged, dead)
VALUES (:minute, :applied, :unchanged, :dead)
ON CONFLICT (minute) DO UPDATE SET
    applied = applied + excluded.applied,
    unchanged = unchanged + excluded.unchanged,
    dead = dead + excluded.dead;
