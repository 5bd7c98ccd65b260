-- A claim writes to its targets, and with that to every index on them. Completion ids are random: in an index on them,
-- a hundred targets have a hundred pages, which a server has to read, write and log for each claim as soon as there are
-- millions of them. By number, in the order in which they came, they lie together. So targets and their changes go by
-- number, and which number a completion has is told by a table of its own, which claims do not touch.

SET LOCAL enable_seqscan TO DEFAULT;
SET LOCAL enable_hashjoin TO DEFAULT;
SET LOCAL enable_mergejoin = off; -- it would go through the changes in the order of completion ids, all over the disk

ALTER TABLE metasync.target
    ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY,
    DROP CONSTRAINT target_pkey,
    ADD PRIMARY KEY (number);
ALTER TABLE metasync.change ADD COLUMN target bigint;
DROP INDEX metasync.change_completion_id;
UPDATE metasync.change
SET target = target.number
FROM metasync.target
WHERE target.completion_id = change.completion_id;
ALTER TABLE metasync.change
    ALTER COLUMN target SET NOT NULL,
    DROP COLUMN completion_id;
CREATE INDEX change_target ON metasync.change (target, id);

-- The completions that have a target. Producers lock these rows, workers those of the targets.
CREATE TABLE metasync.completion (
    completion_id text COLLATE "C" NOT NULL,
    target bigint NOT NULL
) WITH (
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_cost_delay = 0
);
INSERT INTO metasync.completion (completion_id, target) SELECT completion_id, number FROM metasync.target;
ALTER TABLE metasync.completion
    ADD PRIMARY KEY (completion_id),
    ALTER COLUMN target ADD GENERATED ALWAYS AS IDENTITY;
SELECT setval('metasync.completion_target_seq', nextval('metasync.target_number_seq'), false);
ALTER TABLE metasync.target ALTER COLUMN number DROP IDENTITY; -- it is given by the completion's

CREATE OR REPLACE FUNCTION metasync.begin_append(completion_ids text[]) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off -- the tables may have been empty when they were last counted
AS $$
DECLARE
    -- Everybody takes turns in one order: nobody waits for somebody who waits for him.
    wanted text[] := ARRAY(SELECT DISTINCT unnest(completion_ids) COLLATE "C" ORDER BY 1);
    began_at timestamptz;
    found integer;
BEGIN
    INSERT INTO metasync.turn (completion_id) SELECT unnest(wanted);
    DELETE FROM metasync.turn WHERE completion_id = ANY (wanted);
    began_at := clock_timestamp();
    LOOP
        WITH fresh AS (
            INSERT INTO metasync.completion (completion_id)
            SELECT unnest(completion_ids) -- in the order given, so that the first is the first to be claimed
            ON CONFLICT (completion_id) DO NOTHING
            RETURNING completion_id, target
        )
        INSERT INTO metasync.target (number, completion_id, visible_at)
        SELECT target, completion_id, began_at FROM fresh;
        GET DIAGNOSTICS found = ROW_COUNT;
        EXIT WHEN found = cardinality(wanted);
        -- A target may go between these two statements: then once more.
        PERFORM FROM metasync.completion WHERE completion_id = ANY (wanted) ORDER BY completion_id FOR KEY SHARE;
        GET DIAGNOSTICS found = ROW_COUNT;
        EXIT WHEN found = cardinality(wanted);
    END LOOP;
    PERFORM pg_notify('metasync', ''); -- one a transaction, however often this runs
END
$$;

CREATE OR REPLACE FUNCTION metasync.metasync_enqueue(
    completion_id text, patch jsonb, mode text DEFAULT 'merge', change_id text DEFAULT NULL
) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
    PERFORM metasync.check_change($1, $2, $3, $4);
    PERFORM metasync.begin_append(ARRAY[$1]);
    INSERT INTO metasync.change (target, change_id, mode, metadata, enqueued_at)
    SELECT max(target), $4, $3, $2::json, clock_timestamp() -- in a frozen view, one that has gone is seen beside its heir
    FROM metasync.completion
    WHERE completion_id = $1
    ON CONFLICT (change_id) DO NOTHING;
    IF FOUND THEN
        RETURN true;
    END IF;
    WITH gone AS (
        DELETE FROM metasync.completion
        WHERE completion_id = $1 AND NOT EXISTS (SELECT FROM metasync.change WHERE change.target = completion.target)
        RETURNING target
    )
    DELETE FROM metasync.target USING gone WHERE number = gone.target;
    RETURN false;
END
$$;

INSERT INTO metasync.migration (version) VALUES (4);
