-- What a worker says on the connection on which it listens, outside of any transaction.

-- name: say
-- That it waits: see metasync.begin_append, which is not to notify otherwise.
SELECT pg_advisory_lock_shared(7881707736);

-- name: unsay
SELECT pg_advisory_unlock_shared(7881707736);

-- name: number
-- Takes a number as a transaction that writes does: those that took theirs before are listed, from now on, while they run.
SELECT pg_current_xact_id();

-- name: running
SELECT pg_snapshot_xip(pg_current_snapshot())::text::bigint AS number;
