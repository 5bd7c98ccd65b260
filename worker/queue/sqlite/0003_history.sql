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

PRAGMA user_version = 3;
