-- name: open
INSERT INTO batch (name, created_at, last_put_at)
VALUES (:name, :now, :now)
ON CONFLICT (name) DO UPDATE SET last_put_at = excluded.last_put_at
RETURNING number;

-- name: grow
-- newest: the number of the newest change before those that came to the batch
UPDATE batch
SET
    changes = changes + :added,
    first_change = coalesce(first_change, (SELECT id FROM change WHERE id > :newest ORDER BY id LIMIT 1)),
    last_change = (SELECT max(id) FROM change)
WHERE number = :number;

-- name: end
-- ends: JSON array of [name, applied, unchanged, superseded, dead]
UPDATE batch
SET
    applied = applied + (ends.value ->> 1),
    unchanged = unchanged + (ends.value ->> 2),
    superseded = superseded + (ends.value ->> 3),
    dead = dead + (ends.value ->> 4),
    first_done_at = coalesce(first_done_at, :now),
    last_done_at = :now
FROM json_each(:ends) AS ends
WHERE batch.name = ends.value ->> 0;

-- name: open_again
-- numbers: JSON array of letters, whose batches may have been forgotten
INSERT INTO batch (name, created_at, last_put_at)
SELECT DISTINCT dead_letter.batch, :now, :now
FROM json_each(:numbers) AS selected
CROSS JOIN dead_letter ON dead_letter.number = selected.value
WHERE dead_letter.batch IS NOT NULL
ON CONFLICT (name) DO NOTHING;

-- name: revive
-- numbers: as above; newest: as above. Letters of a batch that was forgotten are its first changes.
UPDATE batch
SET
    dead = max(dead - revived.letters, 0),
    changes = changes + max(revived.letters - dead, 0),
    last_put_at = CASE WHEN revived.letters > dead THEN :now ELSE last_put_at END,
    first_change = coalesce(first_change, (SELECT id FROM change WHERE id > :newest ORDER BY id LIMIT 1)),
    last_change = (SELECT max(id) FROM change)
FROM (
    SELECT dead_letter.batch, count(*) AS letters
    FROM json_each(:numbers) AS selected
    CROSS JOIN dead_letter ON dead_letter.number = selected.value
    WHERE dead_letter.batch IS NOT NULL
    GROUP BY dead_letter.batch
) AS revived
WHERE batch.name = revived.batch;

-- name: read
-- The batch of this name; with NULL all batches, the newest first: only then does it scan them.
SELECT json_group_array(json_object(
    'name', name,
    'created_at', created_at + :ahead,
    'changes', changes,
    'applied', applied,
    'unchanged', unchanged,
    'superseded', superseded,
    'dead', dead,
    'withdrawn', withdrawn,
    'first_done_at', first_done_at + :ahead,
    'last_done_at', last_done_at + :ahead,
    'last_put_at', last_put_at + :ahead
))
FROM (
    SELECT * FROM batch WHERE :name IS NULL
    UNION ALL
    SELECT * FROM batch WHERE name = :name
    ORDER BY number DESC
);

-- name: forget
DELETE FROM batch
WHERE number IN (
    SELECT number
    FROM (
        SELECT
            number,
            row_number() OVER (ORDER BY number DESC) AS place,
            max(last_put_at, coalesce(last_done_at, last_put_at)) AS heard_of_at
        FROM batch
        WHERE changes <= applied + unchanged + superseded + dead + withdrawn
    )
    WHERE place > :kept OR heard_of_at < :since
    ORDER BY number
    LIMIT :most
);
