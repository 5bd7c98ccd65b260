-- name: due_at
SELECT due_at FROM quota;

-- name: keep
UPDATE quota SET due_at = :due_at;
