-- Tasks that wait for the previous run of their DAG.

-- name: add_past_waits
-- Insert tasks that wait for the previous run (run, node); the sweeper finds those not checked.
INSERT INTO past_wait (run, node) SELECT * FROM unnest($1::bigint[], $2::int[])
ON CONFLICT DO NOTHING;

-- name: find_past_waits
-- Return the tasks of the runs $1 that wait for the previous run, and those that wait for one of $2.
SELECT run, node, on_run, on_task FROM past_wait
WHERE run = ANY($1::bigint[]) OR on_run = ANY($2::bigint[])
ORDER BY run, node;

-- name: find_previous_run
-- Return the run before run $1: by logical time, or, without one, by when it was made.
WITH own AS (
    SELECT id, dag, run_id, logical_time, partition FROM run WHERE id = $1
)
(SELECT before.id, before.version, before.state FROM own JOIN LATERAL (
    SELECT run.id, run.version, run.state FROM run
    WHERE run.dag = own.dag AND run.logical_time < own.logical_time AND run.kind <> 'manual'
      AND run.partition IS NOT DISTINCT FROM own.partition
    ORDER BY run.logical_time DESC, run.run_id DESC
    LIMIT 1
) AS before ON true)
UNION ALL
(SELECT before.id, before.version, before.state FROM own JOIN LATERAL (
    SELECT run.id, run.version, run.state FROM run
    WHERE run.dag = own.dag AND own.logical_time IS NULL AND run.logical_time IS NULL
      AND run.run_id < own.run_id AND run.kind <> 'manual'
      AND run.partition IS NOT DISTINCT FROM own.partition
    ORDER BY run.run_id DESC
    LIMIT 1
) AS before ON true);

-- name: find_previous_success
-- Return the last run before run $1 that has succeeded: by logical time, or, without one, by when it
-- was made.
WITH own AS (
    SELECT dag, run_id, logical_time, partition FROM run WHERE id = $1
)
(SELECT before.* FROM own JOIN LATERAL (
    SELECT run.run_id, run.logical_time, run.created_at, run.started_at FROM run
    WHERE run.dag = own.dag AND run.logical_time < own.logical_time AND run.state = 'success'
      AND run.partition IS NOT DISTINCT FROM own.partition
    ORDER BY run.logical_time DESC, run.run_id DESC
    LIMIT 1
) AS before ON true)
UNION ALL
(SELECT before.* FROM own JOIN LATERAL (
    SELECT run.run_id, run.logical_time, run.created_at, run.started_at FROM run
    WHERE run.dag = own.dag AND own.logical_time IS NULL AND run.run_id < own.run_id
      AND run.state = 'success' AND run.partition IS NOT DISTINCT FROM own.partition
    ORDER BY run.run_id DESC
    LIMIT 1
) AS before ON true);

-- name: record_past_checks
-- Record what tasks were found to wait for (run, node, previous run, its task).
UPDATE past_wait SET on_run = n.on_run, on_task = n.on_task, checked_at = now()
FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::text[]) AS n (run, node, on_run, on_task)
WHERE past_wait.run = n.run AND past_wait.node = n.node;

-- name: delete_past_waits
-- Delete the waits of tasks that start (run, node).
DELETE FROM past_wait USING unnest($1::bigint[], $2::int[]) AS n (run, node)
WHERE past_wait.run = n.run AND past_wait.node = n.node;

-- name: delete_past_waits_of_runs
-- Delete the waits of finished runs.
DELETE FROM past_wait WHERE run = ANY($1::bigint[]);

-- name: is_waited_for
-- Return whether tasks of other runs wait for run $1.
SELECT EXISTS (SELECT FROM past_wait WHERE on_run = $1);

-- name: find_overdue_past_waits
-- Return runs whose waits were not checked for $1 seconds since what they wait for may have changed:
-- it has ended or is gone, or a minute has passed.
SELECT DISTINCT past_wait.run FROM past_wait LEFT JOIN run ON run.id = past_wait.on_run
WHERE past_wait.checked_at < now() - make_interval(secs => $1)
  AND (run.id IS NULL OR run.ended_at > past_wait.checked_at
       OR run.ended_at IS NULL AND past_wait.checked_at < now() - interval '1 minute')
ORDER BY past_wait.run
LIMIT $2;

-- name: read_past_waits
-- Return what the tasks of run $1 wait for in the previous run.
SELECT past_wait.node, past_wait.on_task, run.run_id
FROM past_wait LEFT JOIN run ON run.id = past_wait.on_run
WHERE past_wait.run = $1
ORDER BY past_wait.node;
