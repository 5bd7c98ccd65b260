-- name: counts
SELECT json_object(
    'pending', coalesce(sum(pending), 0),
    'in_flight', coalesce(sum(pending) FILTER (WHERE visible_at > :now AND lease IS NOT NULL), 0),
    'waiting', coalesce(sum(pending) FILTER (WHERE visible_at > :now AND lease IS NULL), 0),
    'dead', (SELECT count(*) FROM dead_letter),
    'oldest_enqueued_at', (SELECT enqueued_at FROM change ORDER BY id LIMIT 1),
    'recently_done', (SELECT coalesce(sum(applied + unchanged + dead), 0) FROM history WHERE minute >= :since_minute)
)
FROM target;

-- name: next_due
SELECT min(visible_at) FROM target;

-- name: dead_reasons
SELECT json_group_object(reason, letters)
FROM (SELECT reason, count(*) AS letters FROM dead_letter GROUP BY reason);
