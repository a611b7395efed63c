-- Reads about runs and tasks. Run ids grow with time, so they order runs by age.

-- part: page_of_filtered_runs
  AND ($6::text IS NULL OR run.partition = $6)
  AND ($7::timestamptz IS NULL OR run.created_at >= $7)
  AND ($8::timestamptz IS NULL OR run.created_at < $8)
  AND NOT EXISTS (
      SELECT FROM unnest($9::text[], $10::text[]) AS wanted (name, value)
      WHERE run.params ->> wanted.name IS DISTINCT FROM wanted.value)
  AND NOT EXISTS (
      SELECT FROM unnest($11::text[]) AS wanted (tag)
      WHERE wanted.tag <> ALL (run.tags) AND NOT EXISTS (
          SELECT FROM unnest($12::int[], $13::text[]) AS tagged (dag, tag)
          WHERE tagged.dag = run.dag AND tagged.tag = wanted.tag))
ORDER BY run.run_id DESC
LIMIT $3;

-- name: page_runs
-- Return ids of runs before the run $1 down to the run $2, at most $3, that are in one of the states
-- $4, of one of the kinds $5 (any but checks if null), of partition $6, made in [$7, $8), with the
-- params $9 = $10, of which each tag of $11 is a tag, or one of their DAG's: $12, $13, and of the
-- DAGs $14, if given.
SELECT run.id FROM run
WHERE run.run_id < $1 AND run.run_id >= $2
  AND ($14::int[] IS NULL OR run.dag = ANY($14))
  AND ($4::text[] IS NULL OR run.state = ANY($4))
  AND (CASE WHEN $5::text[] IS NULL THEN run.kind <> 'check' ELSE run.kind = ANY($5) END)
-- include page_of_filtered_runs

-- name: page_dag_runs
-- Return ids of runs of DAG $14; otherwise as page_runs.
SELECT run.id FROM run
WHERE run.dag = $14 AND run.run_id < $1 AND run.run_id >= $2
  AND ($4::text[] IS NULL OR run.state = ANY($4))
  AND ($5::text[] IS NULL OR run.kind = ANY($5))
-- include page_of_filtered_runs

-- name: page_live_runs
-- Return ids of running and queued runs, of DAG $14 if given, of the DAGs $15 if given; otherwise
-- as page_runs.
SELECT run.id
FROM (SELECT run, dag FROM run_live UNION ALL SELECT run, dag FROM run_queue) AS live
JOIN run ON run.id = live.run
WHERE run.run_id < $1 AND run.run_id >= $2 AND ($14::int IS NULL OR live.dag = $14)
  AND ($15::int[] IS NULL OR live.dag = ANY($15))
  AND ($4::text[] IS NULL OR run.state = ANY($4))
  AND (CASE WHEN $5::text[] IS NULL THEN run.kind <> 'check' OR live.dag = $14
            ELSE run.kind = ANY($5) END)
-- include page_of_filtered_runs

-- name: page_backfill_runs
-- Return ids of runs that the backfill $15 has made, of DAG $14 if given; otherwise as page_runs.
SELECT run.id FROM backfill_run AS made JOIN run ON run.id = made.run
WHERE made.backfill = $15
  AND run.run_id < $1 AND run.run_id >= $2 AND ($14::int IS NULL OR run.dag = $14)
  AND ($4::text[] IS NULL OR run.state = ANY($4))
  AND ($5::text[] IS NULL OR run.kind = ANY($5))
-- include page_of_filtered_runs

-- name: has_checks
-- Whether there are runs of checks, which lists leave out.
SELECT min(id) IS NOT NULL FROM check_result;

-- name: find_scan_end
-- Return the run that is $2 runs older than the run $1.
SELECT run_id FROM run WHERE run_id < $1 ORDER BY run_id DESC OFFSET $2 LIMIT 1;

-- name: find_dag_scan_end
-- Return the run of DAG $3 that is $2 of its runs older than the run $1.
SELECT run_id FROM run WHERE dag = $3 AND run_id < $1 ORDER BY run_id DESC OFFSET $2 LIMIT 1;

-- name: read_run_numbers
-- Return the numbers of runs.
SELECT id, run_id FROM run WHERE run_id = ANY($1::uuid[]);

-- name: read_runs
-- Return runs, newest first.
SELECT run.id, run.run_id, dag.dag_id, run.state, run.kind, run.cause, run.version, v.number,
       run.run_key, run.params, run.logical_time, run.partition, run.error, run.created_at,
       run.started_at, run.ended_at, run.clear_number, run.tags, run.note
FROM run
JOIN dag ON dag.id = run.dag
JOIN dag_version AS v ON v.id = run.version
WHERE run.id = ANY($1::bigint[])
ORDER BY run.run_id DESC;

-- name: count_run_tasks
-- Count the task instances of a run by node and state.
SELECT node, state, count(*) AS instances FROM task WHERE run = $1 GROUP BY node, state
UNION ALL
SELECT node, state, count(*) AS instances FROM task_live WHERE run = $1 GROUP BY node, state;

-- name: page_run_tasks
-- Return the task instances of a run that have become ready, after node $2 and map index $3.
SELECT * FROM (
    (SELECT node, map_index, attempt, state, worker, queued_at, started_at, ended_at, length, error,
            peak_memory, map_name
     FROM task
     WHERE run = $1 AND (node, map_index) > ($2::int, $3::int)
     ORDER BY node, map_index LIMIT $4)
    UNION ALL
    (SELECT node, map_index, attempt, state, worker,
            CASE WHEN chained THEN started_at ELSE least(queued_at, started_at) END, started_at,
            NULL, NULL, NULL, NULL, NULL
     FROM task_live
     WHERE run = $1 AND (node, map_index) > ($2::int, $3::int)
     ORDER BY node, map_index LIMIT $4)
) AS instance
ORDER BY node, map_index
LIMIT $4;

-- name: read_run_progress
-- Return the progress of a run that has not ended.
SELECT progress,
       (SELECT array_agg(chunk.progress ORDER BY chunk.number) FROM progress_chunk AS chunk
        WHERE chunk.run = run_live.run) AS chunks
FROM run_live WHERE run = $1;

-- name: page_tasks_of_runs
-- Return the task instances of the runs $1, in their order, that are in one of the states $3, if
-- given, of the nodes $2 of each, if given; of the run $4 those after node $5 and map index $6; at
-- most $7.
SELECT instance.*
FROM (
    SELECT wanted.run, wanted.node, wanted.place
    FROM unnest($1::bigint[], $2::int[]) WITH ORDINALITY AS wanted (run, node, place)
) AS wanted
CROSS JOIN LATERAL (
    (SELECT task.run, task.node, task.map_index, task.attempt, task.state, task.worker,
            task.queued_at, task.started_at, task.ended_at, task.length, task.error,
            task.peak_memory, task.map_name
     FROM task
     WHERE task.run = wanted.run AND (wanted.node IS NULL OR task.node = wanted.node)
       AND ($3::text[] IS NULL OR task.state = ANY($3))
       AND (task.run <> $4::bigint OR (task.node, task.map_index) > ($5::int, $6::int))
     ORDER BY task.node, task.map_index LIMIT $7)
    UNION ALL
    (SELECT t.run, t.node, t.map_index, t.attempt, t.state, t.worker,
            CASE WHEN t.chained THEN t.started_at ELSE least(t.queued_at, t.started_at) END,
            t.started_at, NULL, NULL, NULL, NULL, NULL
     FROM task_live AS t
     WHERE t.run = wanted.run AND (wanted.node IS NULL OR t.node = wanted.node)
       AND ($3::text[] IS NULL OR t.state = ANY($3))
       AND (t.run <> $4::bigint OR (t.node, t.map_index) > ($5::int, $6::int))
     ORDER BY t.node, t.map_index LIMIT $7)
) AS instance
ORDER BY wanted.place, instance.node, instance.map_index
LIMIT $7;

-- name: read_waiting_tasks
-- Return the tasks of run $1 that wait for a slot or a worker, the first $2.
SELECT node, map_index, state
FROM task_live
WHERE run = $1 AND state IN ('ready', 'queued')
ORDER BY node, map_index
LIMIT $2;

-- name: read_task
-- Return a task instance, with its result and its outputs unless these are larger than $4 bytes.
SELECT node, map_index, attempt, state, worker, queued_at, started_at, ended_at, length, error,
       peak_memory, map_name,
       CASE WHEN octet_length(result) <= $4 THEN result END AS result,
       coalesce(octet_length(result), 0) AS result_bytes,
       CASE WHEN octet_length(outputs) <= $4 THEN outputs END AS outputs,
       coalesce(octet_length(outputs), 0) AS outputs_bytes
FROM task
WHERE run = $1 AND node = $2 AND map_index = $3
UNION ALL
SELECT node, map_index, attempt, state, worker,
       CASE WHEN chained THEN started_at ELSE least(queued_at, started_at) END, started_at, NULL,
       NULL, NULL, NULL, NULL, NULL, 0, NULL, 0
FROM task_live
WHERE run = $1 AND node = $2 AND map_index = $3;

-- name: read_attempts
-- Return the attempts of a task instance that another attempt followed.
SELECT attempt, delivery, worker, started_at, ended_at, error, state, peak_memory
FROM attempt
WHERE run = $1 AND node = $2 AND map_index = $3
ORDER BY attempt, delivery;

-- name: read_task_state
-- Return the state of a task instance; no row while it is not ready.
SELECT attempt, delivery, state FROM task_live WHERE run = $1 AND node = $2 AND map_index = $3
UNION ALL
SELECT attempt, NULL, state FROM task WHERE run = $1 AND node = $2 AND map_index = $3;

-- name: read_unsuccessful
-- Return the instances of the nodes $2 that did not succeed, the first $3.
SELECT node, map_index, state
FROM task
WHERE run = $1 AND node = ANY($2::int[]) AND state <> 'success'
ORDER BY node, map_index
LIMIT $3;

-- name: count_instances
-- Return how many instances of a mapped task there are.
SELECT count(*) FROM (
    SELECT map_index FROM task WHERE run = $1 AND node = $2 AND map_index >= 0
    UNION ALL
    SELECT map_index FROM task_live WHERE run = $1 AND node = $2 AND map_index >= 0
) AS instances;

-- name: read_log
-- Return chunks of a task instance's output after (attempt $4, delivery $5, sequence $6), and the
-- files of the log store that have some; in one statement, as chunks may be on their way there.
(
    SELECT attempt, delivery, sequence, text, NULL::int[] AS sequences, NULL::int[] AS lines
    FROM log
    WHERE run = $1 AND node = $2 AND map_index = $3
      AND (attempt, delivery, sequence) > ($4::int, $5::bigint, $6::int)
    ORDER BY attempt, delivery, sequence
    LIMIT $7
)
UNION ALL
(
    SELECT attempt, delivery, last_sequence, name, sequences, lines
    FROM log_object
    WHERE run = $1 AND node = $2 AND map_index = $3
      AND (attempt, delivery, last_sequence) > ($4::int, $5::bigint, $6::int)
    ORDER BY attempt, delivery, last_sequence
    LIMIT $8
);

-- name: count_log_lines
-- Return how many lines the chunks of attempt $4 of a task instance have after (delivery $5,
-- sequence $6), and those of its files in the log store; a chunk is in one of the two.
SELECT delivery, ARRAY[sequence] AS sequences,
       ARRAY[octet_length(text) - octet_length(replace(text, E'\n', ''))] AS lines
FROM log
WHERE run = $1 AND node = $2 AND map_index = $3 AND attempt = $4
  AND (delivery, sequence) > ($5::bigint, $6::int)
UNION ALL
SELECT delivery, sequences, lines
FROM log_object
WHERE run = $1 AND node = $2 AND map_index = $3 AND attempt = $4
  AND (delivery, last_sequence) > ($5::bigint, $6::int);

-- name: read_consumed
-- Return the events that the runs $1 consumed, with the inputs, the first $2 events of each.
SELECT requested.run, consumed.event, consumed.inputs
FROM unnest($1::bigint[]) AS requested (run)
CROSS JOIN LATERAL (
    SELECT event, array_agg(input ORDER BY input) AS inputs
    FROM run_event WHERE run_event.run = requested.run GROUP BY event ORDER BY event LIMIT $2
) AS consumed
ORDER BY requested.run, consumed.event;

-- name: read_called_run
-- Return what a caller needs to know of a run.
SELECT run.id, run.state, run.version, run.error, dag.dag_id
FROM run JOIN dag ON dag.id = run.dag
WHERE run.run_id = $1;

-- name: read_called_results
-- Return the results of the instances of a node that have ended, in map order.
SELECT map_index, state, result FROM task
WHERE run = $1 AND node = $2
ORDER BY map_index;

-- name: read_call_failure
-- Return the task that failed first of a run, with its error.
SELECT node, map_index, error FROM task
WHERE run = $1 AND state = 'failed'
ORDER BY ended_at, node, map_index
LIMIT 1;
