-- name: append
-- completion_ids, maps: JSON arrays
INSERT INTO confirmed (written_at, total, completion_ids, maps)
VALUES (
    :now,
    coalesce((SELECT total FROM confirmed ORDER BY number DESC LIMIT 1), 0) + :updates,
    :completion_ids,
    :maps
)
RETURNING
    total,
    (SELECT oldest.written_at FROM confirmed AS oldest ORDER BY oldest.number LIMIT 1),
    (SELECT oldest.total FROM confirmed AS oldest ORDER BY oldest.number LIMIT 1);

-- name: forget
-- At most two, so that no settlement pays for many; returns for each whether it was deleted early.
DELETE FROM confirmed
WHERE number IN (SELECT number FROM confirmed ORDER BY number LIMIT 2) AND (written_at <= :since OR total <= :total)
RETURNING written_at > :since;

-- name: expire
DELETE FROM confirmed
WHERE number IN (SELECT number FROM confirmed ORDER BY number LIMIT :limit)
    AND number < (SELECT max(number) FROM confirmed) AND written_at <= :since;

-- name: empty
-- The newest row stays, without content: else its number would be given again.
UPDATE confirmed SET completion_ids = '[]', maps = '[]'
WHERE number = (SELECT max(number) FROM confirmed) AND written_at <= :since AND maps <> '[]'
RETURNING number;

-- name: news
SELECT json_group_array(json_array(
    number, written_at, json(CASE WHEN written_at > :since THEN completion_ids ELSE '[]' END)
))
FROM confirmed
WHERE number > :last;

-- name: rows
-- numbers: JSON array. Of these rows, in their order, as many as have :bytes of maps, and one more.
SELECT CAST(json_group_array(json_array(confirmed.number, json(confirmed.completion_ids), json(confirmed.maps))) AS BLOB)
FROM (
    SELECT number, sum(bytes) OVER (ORDER BY number ROWS UNBOUNDED PRECEDING) - bytes AS bytes_before
    FROM (
        SELECT confirmed.number, octet_length(confirmed.maps) AS bytes
        FROM json_each(:numbers) AS wanted
        CROSS JOIN confirmed ON confirmed.number = wanted.value
    )
) AS read
CROSS JOIN confirmed ON confirmed.number = read.number
WHERE read.bytes_before <= :bytes;
