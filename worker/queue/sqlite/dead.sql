-- Five ways to the first numbers of a stretch, each with its own index.

-- name: by_number
SELECT json_group_array(number)
FROM (
    SELECT number
    FROM dead_letter
    WHERE number IN (SELECT value FROM json_each(:numbers))
        AND number > :after AND number <= :until
        AND (:completion_id IS NULL OR completion_id = :completion_id)
        AND (:reason IS NULL OR reason = :reason)
    ORDER BY number
    LIMIT :limit
);

-- name: by_completion
SELECT json_group_array(number)
FROM (
    SELECT number
    FROM dead_letter
    WHERE completion_id = :completion_id
        AND number > :after AND number <= :until
        AND (:reason IS NULL OR reason = :reason)
    ORDER BY number
    LIMIT :limit
);

-- name: by_batch
SELECT json_group_array(number)
FROM (
    SELECT number
    FROM dead_letter
    WHERE batch = :batch AND number > :after AND number <= :until
    ORDER BY number
    LIMIT :limit
);

-- name: by_reason
SELECT json_group_array(number)
FROM (
    SELECT number
    FROM dead_letter
    WHERE reason = :reason AND number > :after AND number <= :until
    ORDER BY number
    LIMIT :limit
);

-- name: by_all
SELECT json_group_array(number)
FROM (
    SELECT number FROM dead_letter WHERE number > :after AND number <= :until ORDER BY number LIMIT :limit
);

-- name: matching
-- The letters among them with this age, batch and reason.
SELECT json_group_array(number)
FROM json_each(:numbers) AS selected
CROSS JOIN dead_letter ON dead_letter.number = selected.value
WHERE died_at BETWEEN :from AND :until AND (:batch IS NULL OR batch = :batch) AND (:reason IS NULL OR reason = :reason);

-- name: newest
SELECT coalesce(max(number), 0) FROM dead_letter;

-- name: letters
SELECT json_group_array(json_object(
    'number', number,
    'completion_id', completion_id,
    'change_id', change_id,
    'mode', mode,
    'metadata', metadata,
    'enqueued_at', enqueued_at,
    'reason', reason,
    'status', status,
    'error', error,
    'request_id', request_id,
    'attempts', attempts,
    'died_at', died_at,
    'as_of', as_of,
    'batch', batch
))
FROM json_each(:numbers) AS selected
CROSS JOIN dead_letter ON dead_letter.number = selected.value;

-- name: revivable
-- The first letter of each change_id, unless that change_id is pending.
SELECT json_group_array(number)
FROM (
    SELECT min(number) AS number
    FROM json_each(:numbers) AS selected
    CROSS JOIN dead_letter ON dead_letter.number = selected.value
    WHERE change_id IS NULL OR NOT EXISTS (SELECT 1 FROM change WHERE change.change_id = dead_letter.change_id)
    GROUP BY coalesce(change_id, number) -- a text and a number are never equal here
    ORDER BY 1
);

-- name: dated
-- The letters among them that records of finished changes may keep dead: [number, completion_id, change_id, as_of].
SELECT json_group_array(json_array(number, completion_id, change_id, as_of))
FROM json_each(:numbers) AS selected
CROSS JOIN dead_letter ON dead_letter.number = selected.value
WHERE change_id IS NOT NULL OR as_of IS NOT NULL;

-- name: open
INSERT INTO target (completion_id, visible_at, pending)
SELECT completion_id, :now, 0
FROM json_each(:numbers) AS selected
CROSS JOIN dead_letter ON dead_letter.number = selected.value
WHERE true -- without it, ON CONFLICT would read as a join's ON
ON CONFLICT (completion_id) DO NOTHING;

-- name: revive
INSERT INTO change (target, change_id, mode, metadata, enqueued_at, as_of, batch)
SELECT
    target.number, change_id, mode, metadata, :now, as_of,
    (SELECT batch.number FROM batch WHERE batch.name = dead_letter.batch)
FROM json_each(:numbers) AS selected
CROSS JOIN dead_letter ON dead_letter.number = selected.value
CROSS JOIN target ON target.completion_id = dead_letter.completion_id;

-- name: delete
DELETE FROM dead_letter WHERE number IN (SELECT value FROM json_each(:numbers));

-- name: reasons
SELECT json_group_object(reason, json_object('letters', letters, 'newest', newest))
FROM (
    SELECT reason, count(*) AS letters, max(number) AS newest
    FROM dead_letter
    WHERE number <= :until
    GROUP BY reason
);
