-- name: due_at
SELECT due_at FROM budget;

-- name: keep
UPDATE budget SET due_at = :due_at;
