-- What workers ask for.

-- name: read_node_results
-- Return the results of a node's successful instances in map order, or of instance $3 alone.
SELECT map_index, result FROM task
WHERE run = $1 AND node = $2 AND ($3::int IS NULL OR map_index = $3) AND state = 'success'
ORDER BY map_index;

-- name: read_consumed_events
-- Return the events that a run consumed, in order, as tasks see them.
SELECT event.event_id, dataset.uri, event.extra, event.partition, event.time, event.source,
       run.run_id, dag.dag_id, event.node, dag_version.spec, event.trace
FROM (SELECT DISTINCT event FROM run_event WHERE run = $1 ORDER BY event OFFSET $2 LIMIT $3) AS e
JOIN event ON event.id = e.event
JOIN dataset ON dataset.id = event.dataset
LEFT JOIN run ON run.id = event.run
LEFT JOIN dag ON dag.id = run.dag
LEFT JOIN dag_version ON dag_version.id = run.version
ORDER BY event.id;

-- name: count_consumed_events
-- Count the events that a run consumed.
SELECT count(DISTINCT event) FROM run_event WHERE run = $1;

-- name: read_lease
-- Return who runs a task under a fence, if it is still to be run, and how long ago that worker was
-- heard; nobody who has not said so, or was declared gone, runs it.
SELECT worker.worker, extract(epoch FROM now() - worker.seen_at)::float8 AS silent_seconds
FROM task_live AS t LEFT JOIN worker ON worker.worker = t.worker
WHERE t.run = $1 AND t.node = $2 AND t.map_index = $3 AND t.attempt = $4 AND t.delivery = $5
  AND NOT t.chained AND t.state IN ('queued', 'running');

-- name: read_steps
-- Return what a task has recorded, in order.
SELECT key, label, kind, value, error FROM step
WHERE run = $1 AND node = $2 AND map_index = $3
ORDER BY id;

-- name: hold_run
-- Keep the manager from folding a run until the transaction ends; nothing comes when it has ended.
SELECT run FROM run_live WHERE run = $1 FOR SHARE;

-- name: read_fence
-- Return the fence of a live task that may record something.
SELECT attempt, delivery FROM task_live
WHERE run = $1 AND node = $2 AND map_index = $3 AND state IN ('queued', 'running');

-- name: record_step
-- Record a step unless one stands there, and return the one that does.
WITH new AS (
    INSERT INTO step (run, node, map_index, key, label, kind, value, error)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (run, node, map_index, key) DO NOTHING
    RETURNING key, label, kind, value, error
)
SELECT key, label, kind, value, error FROM new
UNION ALL
SELECT key, label, kind, value, error FROM step
WHERE run = $1 AND node = $2 AND map_index = $3 AND key = $4 AND NOT EXISTS (SELECT FROM new);

-- name: is_task_done
-- Return whether a task has ended.
SELECT EXISTS (SELECT FROM task WHERE run = $1 AND node = $2 AND map_index = $3);
