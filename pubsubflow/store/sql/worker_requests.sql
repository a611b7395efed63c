-- Reads and writes behind the requests of workers.

-- name: read_node_results
-- Return the results of a node's successful instances in map order, or of instance $3 alone.
SELECT map_index, result FROM task
WHERE run = $1 AND node = $2 AND ($3::int IS NULL OR map_index = $3) AND state = 'success'
ORDER BY map_index;

-- name: find_run_by_number
-- Return a run by its number, with its DAG.
SELECT run.id, run.version, dag.dag_id FROM run JOIN dag ON dag.id = run.dag WHERE run.id = $1;

-- name: read_starting_run
-- Return what a live run's tasks know of it, and its DAG and version.
SELECT info, dag, version FROM run_live WHERE run = $1;

-- name: find_run_of_dag
-- Return a run by its public id, with its DAG.
SELECT run.id, run.version, dag.dag_id FROM run JOIN dag ON dag.id = run.dag WHERE run.run_id = $1;

-- name: find_run_of_key
-- Return a run of DAG $1 by its key.
SELECT run.id, run.version, dag.dag_id FROM dag JOIN run ON run.dag = dag.id
WHERE dag.dag_id = $1 AND run.run_key = $2;

-- name: find_last_success
-- Return the last run of a DAG that succeeded.
SELECT run.id, run.version
FROM run
WHERE run.dag = (SELECT dag.id FROM dag WHERE dag.dag_id = $1) AND run.state = 'success'
ORDER BY run.run_id DESC
LIMIT 1;

-- name: read_pushed
-- Return the outputs of a node's instances, or of instance $3 alone, and the results of those that
-- succeeded.
SELECT map_index, outputs, state = 'success' AS succeeded,
       CASE WHEN state = 'success' THEN result END AS result
FROM task
WHERE run = $1 AND node = $2 AND ($3::int IS NULL OR map_index = $3)
ORDER BY map_index;

-- name: read_consumed_events
-- Return a page of the events that a run consumed, in order.
SELECT event_info.*
FROM (SELECT DISTINCT event FROM run_event WHERE run = $1 ORDER BY event OFFSET $2 LIMIT $3) AS e
JOIN event_info ON event_info.id = e.event
ORDER BY event_info.id;

-- name: count_consumed_events
-- Count the events that a run consumed.
SELECT count(DISTINCT event) FROM run_event WHERE run = $1;

-- name: find_live_runs
-- Return which of the runs $1 have not ended.
SELECT run FROM run_live WHERE run = ANY ($1::bigint[])
UNION ALL SELECT run FROM run_queue WHERE run = ANY ($1::bigint[]);

-- name: read_task_lease
-- Return the worker that runs a task under a fence, and the seconds since its last heartbeat; the
-- worker is null when none is known, and no row comes when the fence is void.
SELECT worker.worker, extract(epoch FROM now() - worker.seen_at)::float8 AS silent_seconds
FROM task_live AS t LEFT JOIN worker ON worker.worker = t.worker
WHERE t.run = $1 AND t.node = $2 AND t.map_index = $3 AND t.attempt = $4 AND t.delivery = $5
  AND NOT t.chained AND t.state IN ('queued', 'running');

-- name: read_journal
-- Return the journal of a task, in order.
SELECT key, label, kind, value, error FROM journal_entry
WHERE run = $1 AND node = $2 AND map_index = $3
ORDER BY id;

-- name: lock_run_shared
-- Block the manager from a run until this transaction ends; return no row when the run has ended.
-- FOR SHARE, as one task of a run must not hold up the others; the manager's FOR UPDATE waits.
SELECT run FROM run_live WHERE run = $1 FOR SHARE;

-- name: read_task_fence
-- Return the fence of an unfinished task that may record something.
SELECT attempt, delivery FROM task_live
WHERE run = $1 AND node = $2 AND map_index = $3 AND state IN ('queued', 'running');

-- name: record_journal_entry
-- Insert a journal entry unless its key exists, and return the entry under that key.
WITH new AS (
    INSERT INTO journal_entry (run, node, map_index, key, label, kind, value, error)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (run, node, map_index, key) DO NOTHING
    RETURNING key, label, kind, value, error
)
SELECT key, label, kind, value, error FROM new
UNION ALL
SELECT key, label, kind, value, error FROM journal_entry
WHERE run = $1 AND node = $2 AND map_index = $3 AND key = $4 AND NOT EXISTS (SELECT FROM new);

-- name: is_task_finished
-- Return whether a task has finished.
SELECT EXISTS (SELECT FROM task WHERE run = $1 AND node = $2 AND map_index = $3);
