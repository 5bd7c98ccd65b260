-- name: counts
-- To count rows, all of them, is quick: a twentieth of a second for three million.
SELECT json_object(
    'pending', (SELECT count(*) FROM change),
    'in_flight', coalesce(sum(pending) FILTER (WHERE lease IS NOT NULL), 0),
    'waiting', coalesce(sum(pending) FILTER (WHERE lease IS NULL), 0),
    'dead', (SELECT count(*) FROM dead_letter),
    'oldest_enqueued_at', (SELECT enqueued_at + :ahead FROM change ORDER BY id LIMIT 1),
    'recently_done', (
        SELECT coalesce(sum(applied + unchanged + dead + superseded), 0) FROM history WHERE minute >= :since_minute
    )
)
FROM target
WHERE urgent IN (0, 1) AND visible_at > :now;

-- name: leases
SELECT json_group_array(json_array(owner, completions, changes, since_us, until))
FROM (
    SELECT owner, count(*) AS completions, sum(pending) AS changes, min(lease) AS since_us, max(visible_at) AS until
    FROM target
    WHERE urgent IN (0, 1) AND visible_at > :now AND lease IS NOT NULL
    GROUP BY owner
    ORDER BY since_us
);

-- name: next_due
SELECT min(visible_at)
FROM (
    SELECT min(visible_at) AS visible_at FROM target WHERE urgent = 0
    UNION ALL
    SELECT min(visible_at) FROM target WHERE urgent = 1
);
