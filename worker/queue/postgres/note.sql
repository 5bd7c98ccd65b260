-- name: write
-- $1 name, $2 text
INSERT INTO metasync.note (name, text, written_at)
VALUES ($1::text, $2::text, statement_timestamp())
ON CONFLICT (name) DO UPDATE SET text = excluded.text, written_at = excluded.written_at;

-- name: remove
-- $1 name
DELETE FROM metasync.note WHERE name = $1::text;

-- name: one
-- $1 name
SELECT text, extract(epoch FROM statement_timestamp() - written_at)::float8 AS age_seconds
FROM metasync.note
WHERE name = $1::text;

-- name: all
SELECT name, text, extract(epoch FROM statement_timestamp() - written_at)::float8 AS age_seconds FROM metasync.note;

-- name: time
SELECT extract(epoch FROM statement_timestamp())::float8;
