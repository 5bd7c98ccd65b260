-- Completion ids are random: in an index on them, a hundred targets have a hundred pages, and so would their changes. By
-- number, in the order in which they come, they lie together. So changes hang on the number of their target, and it is
-- the target's row alone that is found by completion id.

-- Times are seconds. Where a comment says so, they are the queue's time: see clock. All others are Unix time.

-- A completion with pending changes. visible_at (the queue's time) is due time, retry time and lease deadline in one.
CREATE TABLE target (
    number INTEGER PRIMARY KEY,
    completion_id TEXT NOT NULL UNIQUE,
    visible_at REAL NOT NULL,
    lease INTEGER, -- NULL: not leased
    owner TEXT, -- the worker that had the last lease
    pending INTEGER NOT NULL CHECK (pending >= 0), -- 0 only until its changes are stored, in the same transaction
    urgent INTEGER NOT NULL DEFAULT 0 CHECK (urgent IN (0, 1)) -- 1 while one of its changes is urgent
) STRICT;

-- Claims need the first three columns; the others let the counts of a status be read without touching the table.
CREATE INDEX target_visible_at ON target (urgent, visible_at, number, lease, pending);

-- The pending changes, in the queue's order.
CREATE TABLE change (
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- the number of a deleted change is not given again
    target INTEGER NOT NULL,
    change_id TEXT,
    mode TEXT NOT NULL,
    metadata TEXT NOT NULL, -- JSON
    enqueued_at REAL NOT NULL, -- the queue's time
    trials TEXT, -- the engine's record of failed tries
    as_of REAL,
    batch INTEGER, -- batch.number
    urgent INTEGER NOT NULL DEFAULT 0 CHECK (urgent IN (0, 1))
) STRICT;

CREATE INDEX change_target ON change (target, id);
CREATE UNIQUE INDEX change_change_id ON change (change_id) WHERE change_id IS NOT NULL;
CREATE INDEX change_urgent ON change (target) WHERE urgent = 1;

-- Changes handed in under a name. They are found between the first and the last of their ids. An index on the batch of
-- every change would make all changes dearer, also those without a batch.
CREATE TABLE batch (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at REAL NOT NULL, -- the queue's time, as are the others here
    last_put_at REAL NOT NULL,
    first_done_at REAL,
    last_done_at REAL,
    first_change INTEGER,
    last_change INTEGER,
    changes INTEGER NOT NULL DEFAULT 0,
    applied INTEGER NOT NULL DEFAULT 0,
    unchanged INTEGER NOT NULL DEFAULT 0,
    superseded INTEGER NOT NULL DEFAULT 0,
    dead INTEGER NOT NULL DEFAULT 0,
    withdrawn INTEGER NOT NULL DEFAULT 0
) STRICT;

-- What is remembered of changes that are done, by a hash of 63 bits of the change_id, or of the completion. A row says in
-- which generation it was written last, and not when: a byte or two, and no index.
CREATE TABLE settled (
    hash INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL
) STRICT;

CREATE TABLE newest (
    hash INTEGER PRIMARY KEY,
    as_of REAL NOT NULL,
    generation INTEGER NOT NULL
) STRICT;

-- Stretches of what is remembered, each written after the one before, and forgotten as a whole.
CREATE TABLE generation (
    kind TEXT NOT NULL, -- settled or newest
    number INTEGER NOT NULL,
    began_at REAL NOT NULL, -- the queue's time
    written_at REAL NOT NULL, -- the queue's time of the last write
    size INTEGER NOT NULL, -- how many rows came with it
    swept INTEGER, -- how far it is forgotten: up to this hash; NULL: not at all
    PRIMARY KEY (kind, number)
) STRICT, WITHOUT ROWID;

-- What the service confirmed last, for as long as its reads may lag behind. A row is what one call of settle confirmed: one
-- for each completion, found by its id, would cost as much as the settlement.
CREATE TABLE confirmed (
    number INTEGER PRIMARY KEY,
    written_at REAL NOT NULL, -- the queue's time
    total INTEGER NOT NULL, -- updates that were ever confirmed, these included
    completion_ids TEXT NOT NULL, -- JSON array
    maps TEXT NOT NULL -- JSON array
) STRICT;

-- The changes that were given up.
CREATE TABLE dead_letter (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    completion_id TEXT NOT NULL,
    change_id TEXT,
    mode TEXT NOT NULL,
    metadata TEXT NOT NULL, -- JSON
    enqueued_at REAL NOT NULL,
    reason TEXT NOT NULL,
    status INTEGER,
    error TEXT,
    request_id TEXT,
    attempts INTEGER NOT NULL,
    died_at REAL NOT NULL,
    as_of REAL,
    batch TEXT -- its name: a letter stays longer than a batch
) STRICT;

CREATE INDEX dead_letter_completion_id ON dead_letter (completion_id);
CREATE INDEX dead_letter_reason ON dead_letter (reason);
CREATE INDEX dead_letter_batch ON dead_letter (batch) WHERE batch IS NOT NULL;

-- The last lease number given out: kept apart from the targets, so that none ever sees a number again.
CREATE TABLE counter (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO counter (name, value) VALUES ('lease', 0);

-- Changes that ended, by minute of Unix time.
CREATE TABLE history (
    minute INTEGER PRIMARY KEY,
    applied INTEGER NOT NULL,
    unchanged INTEGER NOT NULL,
    dead INTEGER NOT NULL,
    superseded INTEGER NOT NULL DEFAULT 0,
    withdrawn INTEGER NOT NULL DEFAULT 0
) STRICT;

-- With each new minute, what is older than a week goes.
CREATE TRIGGER history_forget AFTER INSERT ON history BEGIN
    DELETE FROM history WHERE minute < NEW.minute - 7 * 24 * 60;
END;

-- How things stood in each minute of Unix time, last word of the minute.
CREATE TABLE sample (
    minute INTEGER PRIMARY KEY,
    pending INTEGER NOT NULL,
    oldest_seconds REAL,
    rate_per_second REAL NOT NULL,
    limit_per_second REAL
) STRICT;

-- With each new minute, what is older than a day goes.
CREATE TRIGGER sample_forget AFTER INSERT ON sample BEGIN
    DELETE FROM sample WHERE minute < NEW.minute - 24 * 60;
END;

-- Short texts that workers leave for other processes and later runs.
CREATE TABLE note (
    name TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    written_at REAL NOT NULL -- the queue's time
) STRICT, WITHOUT ROWID;

-- The rate that all workers share: when the next request is due, by the queue's time. One row.
CREATE TABLE quota (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    due_at REAL NOT NULL
) STRICT;

INSERT INTO quota (one, due_at) VALUES (1, 0.0);

-- The queue's time is a clock that all processes of one boot agree on and that never steps, with `ahead` added. The first
-- process of each boot says by how much, so that it goes on as the clock on the wall does. One row, or none yet.
CREATE TABLE clock (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    boot TEXT NOT NULL,
    ahead REAL NOT NULL
) STRICT;

PRAGMA application_id = 0x6d737163;
PRAGMA user_version = 1;
