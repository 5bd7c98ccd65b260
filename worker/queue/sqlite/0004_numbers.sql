-- Completion ids are random: in an index on them, a hundred targets have a hundred pages, and so had their changes. By
-- number, in the order in which they came, they lie together. So changes hang on the number of their target, and it is
-- the target's row alone that is found by completion id.
ALTER TABLE target RENAME TO target_before;
ALTER TABLE change RENAME TO change_before;

CREATE TABLE target (
    number INTEGER PRIMARY KEY,
    completion_id TEXT NOT NULL,
    visible_at REAL NOT NULL,
    lease INTEGER, -- NULL: nobody's
    owner TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    pending INTEGER NOT NULL CHECK (pending >= 0), -- 0 only until its changes are stored, in the same transaction
    last_error TEXT
) STRICT;

INSERT INTO target (number, completion_id, visible_at, lease, owner, attempts, pending, last_error)
SELECT rowid, completion_id, visible_at, lease, owner, attempts, pending, last_error
FROM target_before
ORDER BY rowid;

CREATE TABLE change (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    target INTEGER NOT NULL,
    change_id TEXT,
    mode TEXT NOT NULL,
    metadata TEXT NOT NULL, -- JSON
    enqueued_at REAL NOT NULL
) STRICT;

INSERT INTO change (id, target, change_id, mode, metadata, enqueued_at)
SELECT old.id, target.rowid, old.change_id, old.mode, old.metadata, old.enqueued_at
FROM change_before AS old
CROSS JOIN target_before AS target ON target.completion_id = old.completion_id
ORDER BY old.id;

-- The number of a change that is gone is not given again.
DELETE FROM sqlite_sequence WHERE name = 'change';
UPDATE sqlite_sequence SET name = 'change' WHERE name = 'change_before';

DROP TABLE target_before;
DROP TABLE change_before;
CREATE UNIQUE INDEX target_completion_id ON target (completion_id);
-- Claims need the first column alone; the others let the counts of a status be read without touching the table.
CREATE INDEX target_visible_at ON target (visible_at, lease, pending);
CREATE INDEX change_target ON change (target, id);
CREATE UNIQUE INDEX change_change_id ON change (change_id);

PRAGMA user_version = 4;
