-- Durable timers.

-- name: read_late_timers_seconds
-- Return how long ago the first timer was due: negative if it is still to come, 0 for none.
SELECT coalesce(extract(epoch FROM now() - min(due_at)), 0)::float8 FROM timer
WHERE kind <> 'held_tick';

-- name: list_due_timers
-- Return the timers that are due next.
SELECT id, due_at, kind, dag, run, node, map_index, attempt, key
FROM timer
WHERE kind <> 'held_tick'
ORDER BY due_at, id
LIMIT $1;
