-- name: bury
-- arrays with one element a death: $1 numbers of changes, $2 reasons, $3 attempts, $4 statuses, $5 errors, $6 request ids
INSERT INTO metasync.dead_letter (
    completion_id, change_id, mode, metadata, enqueued_at, reason, attempts, status, error, request_id, died_at, as_of,
    batch
)
SELECT
    target.completion_id, change.change_id, change.mode, change.metadata, change.enqueued_at,
    death.reason, death.attempts, death.status, death.error, death.request_id, statement_timestamp(), change.as_of,
    CASE WHEN change.batch IS NOT NULL THEN (SELECT name FROM metasync.batch WHERE batch.number = change.batch) END
FROM unnest($1::bigint[], $2::text[], $3::integer[], $4::integer[], $5::text[], $6::text[])
    WITH ORDINALITY AS death (number, reason, attempts, status, error, request_id, position)
CROSS JOIN LATERAL (SELECT * FROM metasync.change WHERE change.id = death.number OFFSET 0) AS change
CROSS JOIN LATERAL (
    SELECT completion_id FROM metasync.target WHERE target.number = change.target OFFSET 0
) AS target
ORDER BY death.position;

-- name: remove
-- $1 numbers of changes
DELETE FROM metasync.change WHERE id = ANY ($1::bigint[]);

-- name: shut
-- $1 completion ids; from here on no producer can append to the returned ones. Completions that an open transaction
-- appends to are not returned.
SELECT completion_id
FROM metasync.completion
WHERE completion_id = ANY ($1::text[])
ORDER BY completion_id
FOR UPDATE SKIP LOCKED;

-- name: finish
-- $1 completion ids; deletes the targets that have no changes, and returns their completion ids
WITH gone AS (
    DELETE FROM metasync.completion
    WHERE completion_id = ANY ($1::text[])
        AND (SELECT true FROM metasync.change WHERE change.target = completion.target LIMIT 1) IS NULL
    RETURNING target
)
DELETE FROM metasync.target
WHERE number = ANY (ARRAY(SELECT target FROM gone))
RETURNING completion_id;

-- name: keep
-- $1 numbers of targets, $2 JSON object of the seconds until each is due
UPDATE metasync.target
SET
    visible_at = statement_timestamp() + make_interval(secs => ($2::jsonb ->> number::text)::float8),
    lease = NULL,
    urgent = CASE WHEN target.urgent THEN (
        SELECT change.urgent FROM metasync.change WHERE change.target = target.number AND change.urgent LIMIT 1
    ) END IS NOT NULL
WHERE number = ANY ($1::bigint[]);

-- name: keep_trials
-- $1 numbers of changes, $2 JSON object of their texts
UPDATE metasync.change
SET trials = $2::jsonb ->> id::text
WHERE id = ANY ($1::bigint[]);

-- name: count
-- $1 applied, $2 unchanged, $3 dead, $4 superseded, $5 withdrawn
INSERT INTO metasync.history AS history (minute, part, applied, unchanged, dead, superseded, withdrawn)
VALUES (
    floor(extract(epoch FROM statement_timestamp()) / 60), pg_backend_pid() % 16,
    $1::bigint, $2::bigint, $3::bigint, $4::bigint, $5::bigint
)
ON CONFLICT (minute, part) DO UPDATE SET
    applied = history.applied + excluded.applied,
    unchanged = history.unchanged + excluded.unchanged,
    dead = history.dead + excluded.dead,
    superseded = history.superseded + excluded.superseded,
    withdrawn = history.withdrawn + excluded.withdrawn;

-- name: count_in_batches
-- arrays with one element a batch: $1 names, $2 applied, $3 unchanged, $4 superseded, $5 dead, $6 withdrawn
INSERT INTO metasync.batch_part AS before (
    batch, part, applied, unchanged, superseded, dead, withdrawn, first_done_at, last_done_at
)
SELECT
    batch.number, pg_backend_pid() % 16, ended.applied, ended.unchanged, ended.superseded, ended.dead, ended.withdrawn,
    statement_timestamp(), statement_timestamp()
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
    AS ended (name, applied, unchanged, superseded, dead, withdrawn)
CROSS JOIN LATERAL (
    SELECT number FROM metasync.batch WHERE batch.name = ended.name ORDER BY number LIMIT 1
) AS batch
ORDER BY batch.number
ON CONFLICT (batch, part) DO UPDATE SET
    applied = before.applied + excluded.applied,
    unchanged = before.unchanged + excluded.unchanged,
    superseded = before.superseded + excluded.superseded,
    dead = before.dead + excluded.dead,
    withdrawn = before.withdrawn + excluded.withdrawn,
    first_done_at = coalesce(before.first_done_at, excluded.first_done_at),
    last_done_at = excluded.last_done_at;

-- name: was_committed
-- $1 the number of a transaction. The server may not know it: after a failover that lost the last transactions.
SELECT coalesce(
    CASE
        WHEN $1::text::xid8 < pg_snapshot_xmax(pg_current_snapshot())
        THEN pg_xact_status($1::text::xid8) = 'committed'
    END,
    false
);
