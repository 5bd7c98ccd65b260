-- A completion with pending changes. visible_at (Unix time, seconds) is due time, retry time and lease deadline in one.
CREATE TABLE target (
    completion_id TEXT PRIMARY KEY,
    visible_at REAL NOT NULL,
    lease INTEGER, -- NULL: nobody's
    owner TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    pending INTEGER NOT NULL CHECK (pending > 0),
    last_error TEXT
) STRICT;

-- Claims need the first column alone; the others let the counts of a status be read without touching the table.
CREATE INDEX target_visible_at ON target (visible_at, lease, pending);

-- The pending changes, in the queue's order.
CREATE TABLE change (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    completion_id TEXT NOT NULL,
    change_id TEXT UNIQUE,
    mode TEXT NOT NULL,
    metadata TEXT NOT NULL, -- JSON
    enqueued_at REAL NOT NULL
) STRICT;

CREATE INDEX change_completion_id ON change (completion_id, id);

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
    died_at REAL NOT NULL
) STRICT;

CREATE INDEX dead_letter_completion_id ON dead_letter (completion_id);
CREATE INDEX dead_letter_reason ON dead_letter (reason);

-- The last lease number given out: kept apart from the targets, so that none ever sees a number again.
CREATE TABLE counter (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO counter (name, value) VALUES ('lease', 0);

-- Changes done, by minute of Unix time.
CREATE TABLE history (
    minute INTEGER PRIMARY KEY,
    applied INTEGER NOT NULL,
    unchanged INTEGER NOT NULL,
    dead INTEGER NOT NULL
) STRICT;

-- With each new minute, what is older than a week goes.
CREATE TRIGGER history_forget AFTER INSERT ON history BEGIN
    DELETE FROM history WHERE minute < NEW.minute - 7 * 24 * 60;
END;

-- Short texts that workers leave for other processes and later runs.
CREATE TABLE note (
    name TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    written_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

PRAGMA application_id = 0x6d737163;
PRAGMA user_version = 1;
