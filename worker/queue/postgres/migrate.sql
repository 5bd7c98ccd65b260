-- name: lock
-- The number is metasync's own. The lock keeps two starting workers from making the schema together.
SELECT pg_advisory_xact_lock(7881707735);

-- name: made
-- Not to_regclass: a session may remember for a while that the table was missing.
SELECT EXISTS (
    SELECT
    FROM pg_catalog.pg_class
    JOIN pg_catalog.pg_namespace ON pg_namespace.oid = pg_class.relnamespace
    WHERE nspname = 'metasync' AND relname = 'migration'
);

-- name: may_make
SELECT has_database_privilege(current_database(), 'CREATE');

-- name: takes_no_writes
SELECT current_setting('transaction_read_only')::boolean; -- on a standby, always

-- name: version
SELECT coalesce(max(version), 0) FROM metasync.migration;

-- name: squatters
-- The owners of functions with the short name that are not the queue's. A superuser can do everything without them.
SELECT DISTINCT pg_get_userbyid(short.proowner)::text AS owner
FROM pg_catalog.pg_proc AS short
JOIN pg_catalog.pg_roles ON pg_roles.oid = short.proowner
JOIN pg_catalog.pg_proc AS ours ON ours.proname = short.proname AND ours.pronamespace::regnamespace::text = 'metasync'
WHERE short.proname = 'metasync_enqueue'
    AND short.pronamespace::regnamespace::text = 'public'
    AND short.proowner <> ours.proowner
    AND NOT rolsuper
ORDER BY owner;

-- name: begin
-- What is printed, to be run by hand.
-- Brings the schema metasync from any version, or from none, to {latest}. If it cannot have a lock, it changes nothing,
-- so that producers do not have to wait: run it again.
BEGIN;
SET LOCAL lock_timeout = '1s';
SET LOCAL search_path = pg_catalog, pg_temp; -- no function that another role has made in the schema public is run
{lock};

-- The current version; 0 without a schema.
CREATE FUNCTION pg_temp.metasync_version() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    found integer := 0;
BEGIN
    IF to_regclass('metasync.migration') IS NOT NULL THEN
        SELECT max(version) INTO found FROM metasync.migration;
    END IF;
    RETURN found;
END
$$;
DO $$
BEGIN
    IF pg_temp.metasync_version() > {latest} THEN
        RAISE EXCEPTION 'a newer metasync made the schema: %', pg_temp.metasync_version();
    END IF;
    RAISE NOTICE 'the schema metasync is %, and will be {latest}', pg_temp.metasync_version();
END
$$;

-- name: step
-- From the version before to {leads_to}.
DO $metasync$
BEGIN
    IF pg_temp.metasync_version() < {leads_to} THEN
        EXECUTE $step${sql}$step$;
    END IF;
END
$metasync$;

-- name: end
DROP FUNCTION pg_temp.metasync_version;
COMMIT;
