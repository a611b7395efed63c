-- Limits of runs: how many runs of the DAGs with a tag are active at once.

-- name: lock_run_limits
-- Lock the right to start runs under limits; before it, hold off lock_tag_limits by reading pool.
SELECT pg_advisory_xact_lock(7233006), EXISTS (SELECT FROM pool);

-- name: list_run_limits
-- Return the limits of runs.
SELECT name, slots FROM pool WHERE starts_with(name, 'runs:tag:') ORDER BY name;

-- name: list_dags_with_runs
-- Return the DAGs that have runs which are active or queued, with their versions in force.
SELECT dag, version, active, apart, queued FROM dag_state
WHERE active > 0 OR queued > 0
ORDER BY dag;

-- name: list_next_runs
-- Return the first queued runs of the DAGs $1: $2 of those that count against max_active_runs, and $3
-- of those that the limit of their backfill counts.
SELECT next.dag, next.run, next.position, next.apart
FROM unnest($1::int[], $2::int[], $3::int[]) AS requested (dag, most, most_apart)
CROSS JOIN LATERAL (
    (SELECT q.dag, q.run, q.position, false AS apart
     FROM run_queue AS q
     WHERE q.dag = requested.dag AND NOT EXISTS (
         SELECT FROM backfill_run AS b JOIN backfill AS f ON f.id = b.backfill
         WHERE b.run = q.run AND NOT b.ended AND f.max_active IS NOT NULL)
     ORDER BY q.position LIMIT requested.most)
    UNION ALL
    (SELECT q.dag, q.run, q.position, true
     FROM backfill_run AS b
     JOIN backfill AS f ON f.id = b.backfill
     JOIN run_queue AS q ON q.run = b.run
     WHERE b.dag = requested.dag AND NOT b.ended AND f.max_active IS NOT NULL
     ORDER BY q.position LIMIT requested.most_apart)
) AS next;

-- name: take_queued_runs
-- Remove the runs $1 from their queues and return them in order; their dag_state is locked.
WITH taken AS (
    DELETE FROM run_queue WHERE run = ANY($1::bigint[])
    RETURNING position, dag, run, info, progress
)
SELECT taken.dag, taken.run, taken.info, taken.progress, run.version, run.source
FROM taken JOIN run ON run.id = taken.run
ORDER BY taken.position;

-- name: find_idle_run_queues
-- Return whether runs are queued that no other run's end starts.
SELECT EXISTS (
    SELECT FROM dag_state
    WHERE queued > 0
      AND (active = 0 OR EXISTS (SELECT FROM pool WHERE starts_with(name, 'runs:tag:')))
) AS found;

-- name: read_queued_run
-- Return the state of a queued run's DAG, and whether the run is in its queue yet.
SELECT s.dag, s.version, s.active, s.apart, s.queued, q.run IS NOT NULL AS in_queue
FROM run
JOIN dag_state AS s ON s.dag = run.dag
LEFT JOIN run_queue AS q ON q.run = run.id
WHERE run.id = $1;
