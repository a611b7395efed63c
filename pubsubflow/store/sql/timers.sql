-- Timers.

-- name: read_timers
-- Return the first timers.
SELECT id, due_at, kind, dag, run, node, map_index, attempt, cell
FROM timer
ORDER BY due_at, id
LIMIT $1;
