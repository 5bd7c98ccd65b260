-- The rate that all workers share: when the next permit is due, in seconds of Unix time. One row, written a few times a
-- second: with room in its page, each new version of it takes the place of one that is dead.
CREATE TABLE metasync.budget (
    one int PRIMARY KEY CHECK (one = 1),
    due_at float8 NOT NULL
) WITH (fillfactor = 10);

INSERT INTO metasync.budget (one, due_at) VALUES (1, 0.0);

INSERT INTO metasync.migration (version) VALUES (2);
