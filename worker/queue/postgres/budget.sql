-- name: lock
-- Whoever comes at the same time waits here.
SELECT due_at, extract(epoch FROM statement_timestamp())::float8 AS now FROM metasync.budget FOR UPDATE;

-- name: keep
-- $1 when the next permit is due
UPDATE metasync.budget SET due_at = $1::float8;
