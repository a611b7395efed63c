-- Clearing tasks of runs: finished attempts are kept as prior attempts, the tasks start anew.

-- name: read_finished_tasks
-- Return the finished task instances of a run.
SELECT node, map_index, attempt, state, length FROM task WHERE run = $1 ORDER BY node, map_index;

-- name: read_run_to_clear
-- Lock a run whose tasks are to be cleared, so that it is not removed meanwhile, and return it; its
-- dag_state is locked.
SELECT id, run_id, dag, state, version, kind, cause, params, logical_time, partition, created_at,
       clear_number, clear_id, source
FROM run WHERE id = $1 FOR UPDATE;

-- name: find_starting_run
-- Return a run, one of whose tasks has started another run.
SELECT id, dag, cause FROM run WHERE run_id = $1;

-- name: list_removed_results
-- Return the task instances of a run whose results are removed, that is: are $2.
SELECT node, map_index FROM task WHERE run = $1 AND result = $2;

-- name: count_removed_events
-- Count the events that a run consumed and that are removed.
SELECT count(DISTINCT consumed.event) FROM run_event AS consumed
WHERE consumed.run = $1 AND NOT EXISTS (SELECT FROM event WHERE event.id = consumed.event);

-- name: record_clearing
-- Record how often tasks of a run were cleared, and the request that did it last.
UPDATE run SET clear_number = $2, clear_id = $3 WHERE id = $1;

-- name: reopen_run
-- Return a finished run to state $2, running or queued.
UPDATE run SET state = $2, version = $3, source = $4, error = NULL, ended_at = NULL,
    started_at = CASE WHEN $2 = 'running' THEN now() END
WHERE id = $1 AND state IN ('success', 'failed', 'cancelled');

-- name: queue_reopened_run
-- Queue a reopened run, with the progress from which it continues.
INSERT INTO run_queue (dag, run, info, progress) VALUES ($1, $2, $3, $4);

-- name: clear_tasks
-- Delete task instances (run, node, map index) with their journals, and keep them as prior
-- attempts, under a delivery that marks the clearing.
WITH cleared AS (
    SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::bigint[])
      AS n (run, node, map_index, delivery)
), live AS (
    DELETE FROM task_live USING cleared
    WHERE task_live.run = cleared.run AND task_live.node = cleared.node
      AND task_live.map_index = cleared.map_index
    RETURNING task_live.run, task_live.node, task_live.map_index, task_live.attempt,
              task_live.state, task_live.worker, task_live.started_at, cleared.delivery
), ended AS (
    DELETE FROM task USING cleared
    WHERE task.run = cleared.run AND task.node = cleared.node
      AND task.map_index = cleared.map_index
    RETURNING task.run, task.node, task.map_index, task.attempt, task.state, task.worker,
              task.started_at, task.ended_at, task.error, task.peak_memory, cleared.delivery
), journals AS (
    DELETE FROM journal_entry USING cleared
    WHERE journal_entry.run = cleared.run AND journal_entry.node = cleared.node
      AND journal_entry.map_index = cleared.map_index
)
INSERT INTO attempt (run, node, map_index, attempt, delivery, worker, started_at, ended_at, error,
                     state, peak_memory)
SELECT run, node, map_index, attempt, delivery, worker, started_at, now(), NULL, 'cleared', NULL
FROM live
UNION ALL
SELECT run, node, map_index, attempt, delivery, worker, started_at, ended_at, error, state,
       peak_memory
FROM ended WHERE attempt > 0
ON CONFLICT DO NOTHING;

-- name: read_prior_attempts
-- Return the number of the last attempt before the clearing, for each task instance.
SELECT n.run, n.node, n.map_index, max(attempt.attempt) AS attempt
FROM unnest($1::bigint[], $2::int[], $3::int[]) AS n (run, node, map_index)
JOIN attempt USING (run, node, map_index)
GROUP BY n.run, n.node, n.map_index;

-- name: insert_cleared_tasks
-- Insert cleared tasks that start anew, with the number of their prior attempts.
INSERT INTO task_live (run, node, map_index, attempt, delivery, state, chained, worker, started_at,
                       wait_set, direct, prior_attempts)
SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[], $5::bigint[], $6::text[],
                     $7::boolean[], $8::text[], $9::timestamptz[], $10::bytea[], $11::boolean[],
                     $12::int[]);

-- name: cancel_cleared_tasks
-- Mark cleared task instances that will not run again as cancelled: run, node, map index.
INSERT INTO task (run, node, map_index, attempt, state, ended_at, error)
SELECT run, node, map_index, 0, 'cancelled', now(), $4::jsonb
FROM unnest($1::bigint[], $2::int[], $3::int[]) AS n (run, node, map_index)
ON CONFLICT DO NOTHING;
