-- Backfills: their plans, and the runs that they have made.

-- name: create_backfill
-- Insert a backfill: public id, DAG, plan, partitions, order, what is made again, limit, params,
-- description, number of planned runs, who requested it.
INSERT INTO backfill (backfill_id, dag, state, plan, partitions, newest_first, reprocess,
                      max_active, params, description, planned, created_by)
VALUES ($1, $2, 'running', $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: find_backfill
-- Return the DAG of a backfill, and its state.
SELECT id, dag, state, open FROM backfill WHERE backfill_id = $1;

-- name: settle_backfill_runs
-- Record which runs of a DAG's backfills have ended: those of $2, which end now, and those that a
-- daemon ended that does not know of backfills.
UPDATE backfill_run AS b SET ended = true
WHERE b.dag = $1 AND NOT b.ended AND (
    b.run = ANY($2::bigint[])
    OR EXISTS (SELECT FROM run WHERE run.id = b.run AND run.ended_at IS NOT NULL)
    OR b.made_at < now() - interval '1 minute' AND NOT EXISTS (SELECT FROM run WHERE run.id = b.run)
);

-- name: read_open_backfills
-- Return the open backfills of a DAG in order, with the number of their active runs.
SELECT id, backfill_id, state, plan, newest_first, reprocess, max_active, params, planned, decided,
       made, reached,
       (SELECT count(*) FROM backfill_run AS b
        WHERE b.dag = $1 AND NOT b.ended AND b.backfill = backfill.id)::int AS active
FROM backfill WHERE dag = $1 AND open ORDER BY id;

-- name: read_backfill_partitions
-- Return the partitions from number $2 to number $3 of a backfill.
SELECT partitions[$2::int:$3::int] AS partitions FROM backfill WHERE id = $1;

-- name: find_planned_runs
-- Return the last run of each planned one of a DAG: keys, and for each the tick or the partition. A
-- run counts under the key, or under that of one that was made again; of a partition with $5 any.
SELECT DISTINCT ON (found.run_key) found.run_key, found.run_id, found.state
FROM (
    SELECT planned.run_key, run.id, run.run_id, run.state
    FROM unnest($2::text[], $3::timestamptz[]) AS planned (run_key, logical_time)
    JOIN run ON run.dag = $1 AND run.logical_time = planned.logical_time
            AND (run.run_key = planned.run_key
                 OR starts_with(run.run_key, planned.run_key || ':again:'))
    UNION ALL
    SELECT planned.run_key, run.id, run.run_id, run.state
    FROM unnest($2::text[], $4::text[]) AS planned (run_key, partition)
    JOIN run ON run.dag = $1 AND run.partition = planned.partition
            AND ($5::boolean OR run.run_key = planned.run_key
                 OR starts_with(run.run_key, planned.run_key || ':again:'))
) AS found
ORDER BY found.run_key, found.id DESC;

-- name: record_backfill_runs
-- Insert the runs that backfills make: run, backfill, DAG.
INSERT INTO backfill_run (run, backfill, dag)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::int[]);

-- name: advance_backfill
-- Record how far a backfill has come: state, reason, decided, made, last tick; one without anything
-- left is closed.
UPDATE backfill SET
    state = $2, reason = coalesce($3, reason), decided = $4, made = $5, reached = $6, open = $7,
    advanced_at = now(), ended_at = CASE WHEN NOT $7 THEN coalesce(ended_at, now()) ELSE ended_at END
WHERE id = $1;

-- name: set_backfill_state
-- Set the state of a backfill, and why.
UPDATE backfill SET
    state = $2, reason = $3, ended_at = CASE WHEN $2 = 'cancelled' THEN now() END
WHERE id = $1;

-- name: count_backfills
-- Record in a DAG's state how many of its backfills are open, and how many of its active runs a
-- limit of their own counts; return both.
UPDATE dag_state SET
    backfills = (SELECT count(*) FROM backfill WHERE dag = $1 AND open),
    apart = (SELECT count(*) FROM backfill_run AS b JOIN backfill ON backfill.id = b.backfill
             WHERE b.dag = $1 AND NOT b.ended AND backfill.max_active IS NOT NULL
               AND NOT EXISTS (SELECT FROM run_queue AS q WHERE q.run = b.run))
WHERE dag = $1
RETURNING backfills, apart;

-- name: find_idle_backfills
-- Return the DAGs of backfills that have not been advanced for $1 seconds, though a run of theirs has
-- ended, or none of theirs is active.
SELECT DISTINCT f.dag
FROM backfill AS f
JOIN dag_state AS s ON s.dag = f.dag
WHERE f.open AND f.advanced_at < now() - make_interval(secs => $1) AND (
    f.state <> 'paused' AND s.missing_since IS NULL AND NOT EXISTS (
        SELECT FROM backfill_run AS b WHERE b.dag = f.dag AND NOT b.ended AND b.backfill = f.id)
    OR EXISTS (
        SELECT FROM backfill_run AS b LEFT JOIN run ON run.id = b.run
        WHERE b.dag = f.dag AND NOT b.ended AND b.backfill = f.id
          AND (run.ended_at IS NOT NULL OR run.id IS NULL))
);

-- name: page_backfills
-- Return backfills before the id $1, the newest first, at most $2; of DAG $3 and in one of the states
-- $4, if given.
SELECT f.*, dag.dag_id FROM backfill AS f JOIN dag ON dag.id = f.dag
WHERE f.backfill_id < $1 AND ($3::int IS NULL OR f.dag = $3)
  AND ($4::text[] IS NULL OR f.state = ANY($4))
ORDER BY f.backfill_id DESC
LIMIT $2;

-- name: read_backfill
-- Return a backfill.
SELECT f.*, dag.dag_id FROM backfill AS f JOIN dag ON dag.id = f.dag WHERE f.backfill_id = $1;

-- name: count_runs_of_backfills
-- Count the runs that backfills have made, by state.
SELECT b.backfill, run.state, count(*)::int AS runs
FROM backfill_run AS b
-- Run by run: a plan that joins them otherwise reads all runs there are.
CROSS JOIN LATERAL (SELECT state FROM run WHERE run.id = b.run OFFSET 0) AS run
WHERE b.backfill = ANY($1::bigint[])
GROUP BY b.backfill, run.state;

-- name: list_live_runs_of_backfill
-- Return the runs of a backfill that have not ended.
SELECT run.run_id FROM backfill_run AS b JOIN run ON run.id = b.run
WHERE b.backfill = $1 AND NOT b.ended AND run.ended_at IS NULL
ORDER BY run.id;

-- name: list_runs_made_by_backfill
-- Return which of the runs $2 a backfill has made.
SELECT run.run_id FROM run JOIN backfill_run AS b ON b.run = run.id
WHERE run.run_id = ANY($2::uuid[]) AND b.backfill = $1;

-- name: delete_backfills
-- Delete $2 backfills that ended $1 seconds ago; return how many and their bytes.
WITH gone AS (
    DELETE FROM backfill AS f WHERE id IN (
        SELECT id FROM backfill
        WHERE NOT open AND ended_at < now() - make_interval(secs => $1)
        ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    RETURNING pg_column_size(f.*) AS bytes
)
SELECT count(*) AS rows, coalesce(sum(bytes), 0)::bigint AS bytes FROM gone;

-- name: count_old_backfills
-- Count the backfills that ended $1 seconds ago, with their bytes.
SELECT count(*) AS rows, coalesce(sum(pg_column_size(f.*)), 0)::bigint AS bytes
FROM backfill AS f WHERE NOT open AND ended_at < now() - make_interval(secs => $1);
