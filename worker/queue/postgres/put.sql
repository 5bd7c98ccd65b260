-- name: begin
-- $1 completion ids, each once
SELECT metasync.begin_append($1::text[]);

-- name: append
-- $1 completion ids, $2 change ids, $3 modes, $4 metadata, each an array with one element a change
-- Ids are given in the order of the changes; rows are written in the order of the change_ids, so that two calls that
-- share some wait for each other, and not both.
INSERT INTO metasync.change (id, completion_id, change_id, mode, metadata, enqueued_at)
SELECT id, completion_id, change_id, mode, metadata::json, statement_timestamp()
FROM (
    SELECT nextval('metasync.change_id_seq') AS id, ordered.*
    FROM (
        SELECT *
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
            WITH ORDINALITY AS given (completion_id, change_id, mode, metadata, position)
        ORDER BY position
    ) AS ordered
) AS numbered
ORDER BY change_id COLLATE "C" NULLS FIRST, id
ON CONFLICT (change_id) DO NOTHING;

-- name: forget_empty
-- $1 completion ids: targets that were made for nothing but duplicates
DELETE FROM metasync.target
WHERE completion_id = ANY ($1::text[])
    AND NOT EXISTS (SELECT FROM metasync.change WHERE change.completion_id = target.completion_id);
