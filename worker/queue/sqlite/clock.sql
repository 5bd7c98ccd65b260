-- name: known
SELECT boot, ahead FROM clock;

-- name: agree
INSERT INTO clock (one, boot, ahead)
VALUES (1, :boot, :ahead)
ON CONFLICT (one) DO UPDATE SET boot = excluded.boot, ahead = excluded.ahead;

-- name: doubt
-- How long ago this was confirmed nobody can tell: the clock on the wall may be behind what it was in the last boot.
UPDATE confirmed SET written_at = -1e9;
