-- name: write
INSERT INTO note (name, text, written_at)
VALUES (:name, :text, :now)
ON CONFLICT (name) DO UPDATE SET text = excluded.text, written_at = excluded.written_at;

-- name: remove
DELETE FROM note WHERE name = :name;

-- name: one
SELECT text, written_at FROM note WHERE name = :name;

-- name: all
SELECT json_group_array(json_array(name, text, written_at)) FROM note;
