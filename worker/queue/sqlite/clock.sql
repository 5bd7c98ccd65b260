-- name: known
SELECT boot, ahead FROM clock;

-- name: agree
INSERT INTO clock (one, boot, ahead)
VALUES (1, :boot, :ahead)
ON CONFLICT (one) DO UPDATE SET boot = excluded.boot, ahead = excluded.ahead;

-- name: doubt
-- The age of these maps is unknown: the wall clock may be behind the one of the last boot.
UPDATE confirmed SET written_at = -1e9;
