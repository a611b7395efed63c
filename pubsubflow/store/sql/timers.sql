-- Durable timers.

-- name: list_due_timers
-- Return the timers that are due next.
SELECT id, due_at, kind, dag, run, node, map_index, attempt, key
FROM timer
ORDER BY due_at, id
LIMIT $1;
