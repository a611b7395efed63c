-- Reads for lineage events of a run.

-- name: read_lineage_run
-- Return a run by its public id.
SELECT id, version, state, logical_time, created_at, started_at, ended_at, error
FROM run
WHERE run_id = $1;

-- name: read_lineage_sources
-- Return the datasets whose events a run consumed, and the runs that emitted those.
SELECT DISTINCT dataset.uri, origin.run_id, dag.dag_id
FROM run_event
JOIN event ON event.id = run_event.event
JOIN dataset ON dataset.id = event.dataset
LEFT JOIN run AS origin ON origin.id = event.run
LEFT JOIN dag ON dag.id = origin.dag
WHERE run_event.run = $1
ORDER BY dataset.uri;

-- name: read_lineage_attempts
-- Return the outcomes of the attempts of a run's tasks; of a redelivered one, the last delivery's.
SELECT node, map_index, attempt, state, started_at, ended_at, error
FROM task
WHERE run = $1
UNION ALL
(SELECT DISTINCT ON (node, map_index, attempt)
        node, map_index, attempt, 'failed', started_at, ended_at, error
 FROM attempt AS earlier
 WHERE run = $1 AND NOT EXISTS (
     SELECT FROM task
     WHERE task.run = earlier.run AND task.node = earlier.node
       AND task.map_index = earlier.map_index AND task.attempt = earlier.attempt
 )
 ORDER BY node, map_index, attempt, delivery DESC);

-- name: read_lineage_outputs
-- Return the datasets that task instances of a run emitted events of, with the last attempt of
-- each.
SELECT DISTINCT event.node, event.map_index, task.attempt, dataset.uri
FROM event
JOIN dataset ON dataset.id = event.dataset
JOIN task ON task.run = event.run AND task.node = event.node AND task.map_index = event.map_index
WHERE event.run = $1
ORDER BY event.node, event.map_index, dataset.uri;
