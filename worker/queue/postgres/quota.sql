-- name: lock
-- Concurrent callers wait here, but not for the disk. A crash may lose the requests of the last moment from the quota,
-- and the server is away for longer than that.
SELECT
    due_at,
    extract(epoch FROM statement_timestamp())::float8 AS now,
    set_config('synchronous_commit', 'off', true)
FROM metasync.quota
FOR UPDATE;

-- name: keep
-- $1 when the next request is due
UPDATE metasync.quota SET due_at = $1::float8;
