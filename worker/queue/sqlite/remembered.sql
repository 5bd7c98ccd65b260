-- name: current
-- The current generation, if there is one.
SELECT number, began_at, size, swept IS NOT NULL
FROM generation
WHERE kind = :kind
ORDER BY number DESC
LIMIT 1;

-- name: begin
INSERT INTO generation (kind, number, began_at, written_at, size) VALUES (:kind, :number, :now, :now, 0);

-- name: grow
UPDATE generation SET size = size + :added, written_at = :now WHERE kind = :kind AND number = :number;

-- name: keep_settled
-- hashes: JSON array
INSERT INTO settled (hash, generation)
SELECT value, :generation
FROM json_each(:hashes)
WHERE true -- without it, ON CONFLICT would read as a join's ON
ON CONFLICT (hash) DO UPDATE SET generation = excluded.generation;

-- name: keep_newest
-- newest: JSON array of [hash, as_of]
INSERT INTO newest (hash, as_of, generation)
SELECT value ->> 0, value ->> 1, :generation
FROM json_each(:newest)
WHERE true -- as above
ON CONFLICT (hash) DO UPDATE SET as_of = max(as_of, excluded.as_of), generation = excluded.generation;

-- name: settled
-- hashes: JSON array; gives the positions of those that are known
SELECT json_group_array(given.key)
FROM json_each(:hashes) AS given
CROSS JOIN settled ON settled.hash = given.value;

-- name: newest
-- hashes: JSON array; gives [position, as_of] of those that are known
SELECT json_group_array(json_array(given.key, newest.as_of))
FROM json_each(:hashes) AS given
CROSS JOIN newest ON newest.hash = given.value;

-- name: anything
SELECT EXISTS (SELECT 1 FROM generation);

-- name: expired
-- The last generation to delete: one that is half deleted, else the last expired one, else the oldest if there are too
-- many rows.
SELECT coalesce(
    (SELECT min(number) FROM generation WHERE kind = :kind AND swept IS NOT NULL),
    (SELECT max(number) FROM generation WHERE kind = :kind AND written_at < :since),
    (SELECT min(number) FROM generation WHERE kind = :kind HAVING sum(size) > :most_kept)
);

-- name: swept
SELECT coalesce(swept, -1) FROM generation WHERE kind = :kind AND number = :generation;

-- name: sweep
UPDATE generation SET swept = :swept, size = size - :gone WHERE kind = :kind AND number = :generation;

-- name: hand_on
-- Remaining rows of these generations were written again since.
UPDATE generation
SET size = size + (SELECT sum(size) FROM generation WHERE kind = :kind AND number <= :generation)
WHERE kind = :kind AND number = (SELECT min(number) FROM generation WHERE kind = :kind AND number > :generation);

-- name: end
DELETE FROM generation WHERE kind = :kind AND number <= :generation;

-- name: old_settled
-- The last hash examined, how many were, and the rows to delete among them.
SELECT json_array(max(hash), count(*), json_group_array(hash) FILTER (WHERE generation <= :generation))
FROM (SELECT hash, generation FROM settled WHERE hash > :after ORDER BY hash LIMIT :limit);

-- name: old_newest
SELECT json_array(max(hash), count(*), json_group_array(hash) FILTER (WHERE generation <= :generation))
FROM (SELECT hash, generation FROM newest WHERE hash > :after ORDER BY hash LIMIT :limit);

-- name: forget_settled
DELETE FROM settled WHERE hash > :after AND hash <= :until AND generation <= :generation;

-- name: forget_newest
DELETE FROM newest WHERE hash > :after AND hash <= :until AND generation <= :generation;
