-- The rate that all workers share: when the next permit is due, in seconds of Unix time. One row.
CREATE TABLE budget (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    due_at REAL NOT NULL
) STRICT;

INSERT INTO budget (one, due_at) VALUES (1, 0.0);

PRAGMA user_version = 2;
