-- How things stood in each minute of Unix time, last word of the minute.
CREATE TABLE metasync.sample (
    minute bigint PRIMARY KEY,
    pending bigint NOT NULL,
    oldest_seconds float8,
    rate_per_second float8 NOT NULL,
    limit_per_second float8
) WITH (fillfactor = 50);

-- With each new minute, what is older than a day goes.
CREATE FUNCTION metasync.forget_samples() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM metasync.sample WHERE minute < NEW.minute - 24 * 60;
    RETURN NULL;
END
$$;
CREATE TRIGGER forget_samples AFTER INSERT ON metasync.sample FOR EACH ROW EXECUTE FUNCTION metasync.forget_samples();

INSERT INTO metasync.migration (version) VALUES (3);
