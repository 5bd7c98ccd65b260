-- name: lock
-- The number is of no meaning but ours: it keeps two that start at once from making the schema together.
SELECT pg_advisory_xact_lock(7881707735);

-- name: made
-- Not to_regclass: a session may go on believing for a while what it has once found not to be there.
SELECT EXISTS (
    SELECT
    FROM pg_catalog.pg_class
    JOIN pg_catalog.pg_namespace ON pg_namespace.oid = pg_class.relnamespace
    WHERE nspname = 'metasync' AND relname = 'migration'
);

-- name: version
SELECT coalesce(max(version), 0) FROM metasync.migration;
