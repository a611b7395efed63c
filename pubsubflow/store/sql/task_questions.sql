-- Answers to questions of tasks about other runs, events and kept values.

-- name: find_asking_task
-- Return the version of a live run, with what its tasks know of it.
SELECT version, info FROM run_live WHERE run = $1;

-- name: find_version_in_force
-- Return a DAG's number, and the version that is in force.
SELECT dag.id, dag_state.version FROM dag JOIN dag_state ON dag_state.dag = dag.id
WHERE dag.dag_id = $1;

-- name: find_runs_asked_by_time
-- Return the runs of DAG $1 with one of the logical times $2, the newest $3.
SELECT id, run_id, run_key, version, kind, state, logical_time, partition, created_at, started_at,
       ended_at, params, clear_number
FROM run WHERE dag = $1 AND logical_time = ANY($2::timestamptz[])
ORDER BY run_id DESC LIMIT $3;

-- name: find_runs_asked_by_key
-- Return the runs of DAG $1 with one of the keys $2.
SELECT id, run_id, run_key, version, kind, state, logical_time, partition, created_at, started_at,
       ended_at, params, clear_number
FROM run WHERE dag = $1 AND run_key = ANY($2::text[])
ORDER BY run_id DESC;

-- name: find_runs_asked_by_id
-- Return those of the runs $2 that are of DAG $1.
SELECT id, run_id, run_key, version, kind, state, logical_time, partition, created_at, started_at,
       ended_at, params, clear_number
FROM run WHERE dag = $1 AND run_id = ANY($2::uuid[])
ORDER BY run_id DESC;

-- name: find_newest_runs
-- Return the newest $2 runs of DAG $1.
SELECT id, run_id, run_key, version, kind, state, logical_time, partition, created_at, started_at,
       ended_at, params, clear_number
FROM run WHERE dag = $1
ORDER BY run_id DESC LIMIT $2;

-- name: find_runs_before
-- Return the last $4 runs of DAG $1 before the logical time $2, of state $3 if that is given.
SELECT id, run_id, run_key, version, kind, state, logical_time, partition, created_at, started_at,
       ended_at, params, clear_number
FROM run
WHERE dag = $1 AND logical_time < $2 AND ($3::text IS NULL OR state = $3)
ORDER BY logical_time DESC, run_id DESC LIMIT $4;

-- name: read_clear_number
-- Return how often tasks of a run were cleared.
SELECT clear_number FROM run WHERE run_id = $1;

-- name: find_task_states
-- Return the instances of nodes $2 of run $1, or of all nodes; one of them if $3.
SELECT node, map_index, state, attempt, started_at, NULL::timestamptz AS ended_at FROM task_live
WHERE run = $1 AND ($2::int[] IS NULL OR node = ANY($2)) AND ($3::int IS NULL OR map_index = $3)
UNION ALL
SELECT node, map_index, state, attempt, started_at, ended_at FROM task
WHERE run = $1 AND ($2::int[] IS NULL OR node = ANY($2)) AND ($3::int IS NULL OR map_index = $3)
ORDER BY node, map_index;

-- name: find_first_events
-- Return the first $4 events of a dataset, of those between two moments.
SELECT event_info.* FROM event_info
WHERE event_info.dataset = (SELECT id FROM dataset WHERE uri = $1)
  AND ($2::timestamptz IS NULL OR event_info.time >= $2)
  AND ($3::timestamptz IS NULL OR event_info.time <= $3)
ORDER BY event_info.id LIMIT $4;

-- name: find_last_events
-- Return the last $4 events of a dataset, of those between two moments.
SELECT event_info.* FROM event_info
WHERE event_info.dataset = (SELECT id FROM dataset WHERE uri = $1)
  AND ($2::timestamptz IS NULL OR event_info.time >= $2)
  AND ($3::timestamptz IS NULL OR event_info.time <= $3)
ORDER BY event_info.id DESC LIMIT $4;

-- name: find_dag_fact
-- Return a DAG with its next tick.
SELECT dag.file, dag_state.version, dag_state.paused,
       (SELECT min(due_at) FROM timer WHERE timer.dag = dag.id AND timer.kind = 'tick') AS next_run
FROM dag JOIN dag_state ON dag_state.dag = dag.id
WHERE dag.dag_id = $1;

-- name: find_variable_names
-- Return the names of variables that begin with $1.
SELECT name FROM variable WHERE starts_with(name, $1) ORDER BY name;

-- name: leave_value
-- Leave a value of an attempt for tasks that run beside.
INSERT INTO task_value (run, node, map_index, kind, key, attempt, value)
VALUES ($1, $2, $3, 'early', $4, $5, $6)
ON CONFLICT (run, node, map_index, kind, key) DO UPDATE
SET attempt = excluded.attempt, value = excluded.value;

-- name: take_value_away
-- Remove a value that an attempt has left.
DELETE FROM task_value
WHERE run = $1 AND node = $2 AND map_index = $3 AND kind = 'early' AND key = $4;

-- name: read_early_values
-- Return what the running attempts of a node, or of its instance $4, have left under a key.
SELECT early.map_index, early.value
FROM task_value AS early
JOIN task_live AS live ON live.run = early.run AND live.node = early.node
  AND live.map_index = early.map_index AND live.attempt = early.attempt
WHERE early.run = $1 AND early.node = $2 AND early.kind = 'early' AND early.key = $3
  AND ($4::int IS NULL OR early.map_index = $4)
ORDER BY early.map_index;

-- name: keep_task_value
-- Set a value that the attempts of a task keep.
INSERT INTO task_value (run, node, map_index, kind, key, attempt, value, expires_at)
VALUES ($1, $2, $3, 'kept', $4, $5, $6, $7)
ON CONFLICT (run, node, map_index, kind, key) DO UPDATE
SET attempt = excluded.attempt, value = excluded.value, expires_at = excluded.expires_at;

-- name: read_kept_task_value
-- Return a value that the attempts of a task keep.
SELECT convert_from(value, 'UTF8') FROM task_value
WHERE run = $1 AND node = $2 AND map_index = $3 AND kind = 'kept' AND key = $4
  AND (expires_at IS NULL OR expires_at > now());

-- name: remove_task_values
-- Remove the value under key $4 that a task keeps, or all of them.
DELETE FROM task_value
WHERE run = $1 AND node = $2 AND map_index = $3 AND kind = 'kept'
  AND ($4::text IS NULL OR key = $4);

-- name: keep_dataset_value
-- Set a value that a dataset keeps, which becomes known by it.
WITH known AS (
    INSERT INTO dataset (uri) VALUES ($1) ON CONFLICT (uri) DO NOTHING RETURNING id
), found AS (
    SELECT id FROM known UNION ALL SELECT id FROM dataset WHERE uri = $1 LIMIT 1
)
INSERT INTO dataset_value (dataset, key, value) SELECT id, $2, $3 FROM found
ON CONFLICT (dataset, key) DO UPDATE SET value = excluded.value, updated_at = now();

-- name: read_dataset_value
-- Return a value that a dataset keeps.
SELECT value FROM dataset_value
WHERE dataset = (SELECT id FROM dataset WHERE uri = $1) AND key = $2;

-- name: remove_dataset_values
-- Remove the value under key $2 that a dataset keeps, or all of them.
DELETE FROM dataset_value
WHERE dataset = (SELECT id FROM dataset WHERE uri = $1) AND ($2::text IS NULL OR key = $2);
