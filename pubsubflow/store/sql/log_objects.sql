-- Output of ended attempts in the log store.

-- name: try_lock_log_store
-- Lock the log store's mover for this session, unless another daemon is at it; return whether.
SELECT pg_try_advisory_lock(7233040);

-- name: unlock_log_store
-- Unlock the log store's mover.
SELECT pg_advisory_unlock(7233040);

-- name: list_stored_output
-- Return the attempts after ($1, …, $5) that have output here and do not run, the first $6, with
-- the number of chunks, the last one, and the run.
SELECT found.*, run.run_id, run.version, dag.dag_id
FROM (
    SELECT run, node, map_index, attempt, delivery, count(*)::int AS chunks,
           max(sequence) AS last_sequence
    FROM log AS l
    WHERE (run, node, map_index, attempt, delivery) > ($1::bigint, $2::int, $3::int, $4::int,
                                                       $5::bigint)
      AND NOT EXISTS (
          SELECT FROM task_live AS t
          WHERE t.run = l.run AND t.node = l.node AND t.map_index = l.map_index
            AND t.attempt = l.attempt AND t.delivery = l.delivery
      )
    GROUP BY run, node, map_index, attempt, delivery
    ORDER BY run, node, map_index, attempt, delivery
    LIMIT $6
) AS found
LEFT JOIN run ON run.id = found.run
LEFT JOIN dag ON dag.id = run.dag
ORDER BY found.run, node, map_index, attempt, delivery;

-- name: read_stored_output
-- Return the chunks of an attempt's output, in order.
SELECT sequence, text FROM log
WHERE run = $1 AND node = $2 AND map_index = $3 AND attempt = $4 AND delivery = $5
ORDER BY sequence;

-- name: move_output
-- Record that chunks of an attempt's output are in the log store, and delete them here. One of a
-- removed run comes too late.
WITH recorded AS (
    INSERT INTO log_object (run, node, map_index, attempt, delivery, last_sequence, sequences,
                            lines, bytes, name)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
    WHERE EXISTS (SELECT FROM slice WHERE series = 'run' AND number = $1::bigint >> 32)
    ON CONFLICT DO NOTHING
)
DELETE FROM log
WHERE run = $1 AND node = $2 AND map_index = $3 AND attempt = $4 AND delivery = $5
  AND sequence = ANY($7::int[]);

-- name: list_log_objects
-- Return files of the log store of runs in ($1, $2), except for the runs $3, with their bytes, after
-- the name $4 of run $1, the first $5.
SELECT run, name, bytes FROM log_object
WHERE run >= $1 AND run < $2 AND (run, name) > ($1::bigint, $4::text)
  AND NOT run = ANY($3::bigint[])
ORDER BY run, name
LIMIT $5;

-- name: list_log_objects_of_runs
-- Return the files of the log store of runs, with their bytes.
SELECT name, bytes FROM log_object WHERE run = ANY($1::bigint[]) ORDER BY run, name;
