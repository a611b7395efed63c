-- Clearing tasks of runs: what was is kept as a past attempt, what comes begins anew.

-- name: read_run_tasks
-- Return the instances of a run that have ended.
SELECT node, map_index, attempt, state, length FROM task WHERE run = $1 ORDER BY node, map_index;

-- name: read_cleared_run
-- Return a run that somebody clears tasks of; its DAG's gate is locked.
SELECT id, run_id, dag, state, version, kind, cause, params, logical_time, partition, created_at,
       cleared, clear_id
FROM run WHERE id = $1;

-- name: note_cleared
-- Note that tasks of a run were cleared: how often by now, and by which request.
UPDATE run SET cleared = $2, clear_id = $3 WHERE id = $1;

-- name: reopen_run
-- Let a run go on that has ended, as $2: at once, or once it is its turn.
UPDATE run SET state = $2, version = $3, error = NULL, ended_at = NULL,
    started_at = CASE WHEN $2 = 'running' THEN now() END
WHERE id = $1 AND state IN ('success', 'failed', 'cancelled');

-- name: queue_cleared
-- Put a run of which tasks were cleared in line, with the progress from which it goes on.
INSERT INTO run_queue (dag, run, info, progress) VALUES ($1, $2, $3, $4);

-- name: clear_tasks
-- Take instances away, with their records, and keep what they came to as past attempts: run, node,
-- map index, and the delivery that stands for the end of a life.
WITH cleared AS (
    SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[])
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
              task.started_at, task.ended_at, task.error, cleared.delivery
), records AS (
    DELETE FROM step USING cleared
    WHERE step.run = cleared.run AND step.node = cleared.node
      AND step.map_index = cleared.map_index
)
INSERT INTO attempt (run, node, map_index, attempt, delivery, worker, started_at, ended_at, error,
                     state)
SELECT run, node, map_index, attempt, delivery, worker, started_at, now(), NULL, 'cleared'
FROM live
UNION ALL
SELECT run, node, map_index, attempt, delivery, worker, started_at, ended_at, error, state
FROM ended WHERE attempt > 0
ON CONFLICT DO NOTHING;

-- name: read_past_attempts
-- Return the number of the last attempt that instances had before they were cleared.
SELECT n.run, n.node, n.map_index, max(attempt.attempt) AS attempt
FROM unnest($1::bigint[], $2::int[], $3::int[]) AS n (run, node, map_index)
JOIN attempt USING (run, node, map_index)
GROUP BY n.run, n.node, n.map_index;

-- name: begin_again
-- Make rows for tasks that were cleared, with the attempts that they had before.
INSERT INTO task_live (run, node, map_index, attempt, delivery, state, chained, worker, started_at,
                       waiting, base)
SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[], $5::int[], $6::text[],
                     $7::boolean[], $8::text[], $9::timestamptz[], $10::bytea[], $11::int[]);

-- name: cancel_cleared
-- Note that instances which were to run again never will: run, node, map index.
INSERT INTO task (run, node, map_index, attempt, state, ended_at, error)
SELECT run, node, map_index, 0, 'cancelled', now(), $4::jsonb
FROM unnest($1::bigint[], $2::int[], $3::int[]) AS n (run, node, map_index)
ON CONFLICT DO NOTHING;
