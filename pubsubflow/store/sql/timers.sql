-- Durable timers.

-- name: read_late_timers_seconds
-- Return how long ago the first timer was due: negative if it is still to come, 0 for none.
SELECT coalesce(extract(epoch FROM now() - min(due_at)), 0)::float8 FROM timer
WHERE kind <> 'held_tick';

-- name: list_ticks
-- Return the timers of ticks, with the versions of their DAGs in force.
SELECT timer.id, timer.due_at, timer.node AS slot, dag_state.version
FROM timer JOIN dag_state ON dag_state.dag = timer.dag
WHERE timer.kind = 'tick';

-- name: move_tick
-- Make a tick due at $3, unless it has been moved or claimed meanwhile; return it.
UPDATE timer SET due_at = $3 WHERE id = $1 AND due_at = $2 RETURNING id;

-- name: mend_timers
-- Bring back timers that were set while the clock was ahead: they are due as much later than now as
-- they were to be then. Return how many.
WITH mended AS (
    UPDATE timer SET due_at = now() + (due_at - set_at), set_at = now()
    WHERE set_at > now() + interval '2 seconds'
    RETURNING id
)
SELECT count(*) FROM mended;

-- name: mend_event_waits
-- Make waits for events that began while the clock was ahead begin now.
UPDATE event_wait SET since = now(), due = true, changed_at = now()
WHERE since > now() + interval '2 seconds';

-- name: list_due_timers
-- Return the timers that are due next.
SELECT id, due_at, kind, dag, run, node, map_index, attempt, key
FROM timer
WHERE kind <> 'held_tick'
ORDER BY due_at, id
LIMIT $1;
