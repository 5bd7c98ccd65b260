-- Statements of the listening connection, outside of any transaction.

-- name: say
-- Says that this worker waits: otherwise metasync.tell_workers does not notify.
SELECT pg_advisory_lock_shared(7881707736);

-- name: unsay
SELECT pg_advisory_unlock_shared(7881707736);

-- name: number
-- Takes a transaction number. From now on, `running` lists the transactions with lower numbers while they run.
SELECT pg_current_xact_id();

-- name: running
SELECT pg_snapshot_xip(pg_current_snapshot())::text::bigint AS number;
