-- name: begin
-- $1 completion ids, each once
SELECT metasync.begin_append($1::text[]);

-- name: append
-- $1 completion ids, $2 change ids, $3 modes, $4 metadata, each an array with one element a change
-- Ids are given in the order of the changes; rows are written in the order of the change_ids, so that two calls that
-- share some wait for each other, and not both.
INSERT INTO metasync.change (id, target, change_id, mode, metadata, enqueued_at)
SELECT id, target, change_id, mode, metadata::json, statement_timestamp()
FROM (
    SELECT nextval('metasync.change_id_seq') AS id, ordered.*
    FROM (
        SELECT *
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
            WITH ORDINALITY AS given (completion_id, change_id, mode, metadata, position)
        ORDER BY position
    ) AS ordered
) AS numbered
JOIN metasync.completion USING (completion_id)
ORDER BY change_id COLLATE "C" NULLS FIRST, id
ON CONFLICT (change_id) DO NOTHING;

-- name: suspects
-- $1 to $4 as above; gives what is pending under a change_id and is another text than what is given, by positions from 0;
-- all columns but the position are NULL where nothing is pending under it: it was done a moment ago.
SELECT position - 1 AS position, target.completion_id, change.mode, change.metadata::text
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
    WITH ORDINALITY AS given (completion_id, change_id, mode, metadata, position)
LEFT JOIN metasync.change ON change.change_id = given.change_id
LEFT JOIN metasync.target ON target.number = change.target
WHERE given.change_id IS NOT NULL
    AND (target.completion_id, change.mode, change.metadata::text)
        IS DISTINCT FROM (given.completion_id, given.mode, given.metadata)
ORDER BY position;
