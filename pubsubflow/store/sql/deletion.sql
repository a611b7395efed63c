-- Deletion of DAGs that no file defines any more.

-- name: read_dag_to_delete
-- Return a DAG by its name, with whether its file defines it; the catalog is locked.
SELECT dag.id, dag.file, dag.present AND s.missing_since IS NULL AS defined, s.active, s.queued
FROM dag JOIN dag_state AS s ON s.dag = dag.id
WHERE dag.dag_id = $1
FOR UPDATE OF s;

-- name: count_rows_of_dag
-- Count what belongs to DAG $1.
SELECT (SELECT count(*) FROM run WHERE dag = $1) AS runs,
       (SELECT count(*) FROM dag_version WHERE dag = $1) AS versions,
       (SELECT count(*) FROM pending_event WHERE dag = $1) AS pending_events,
       (SELECT count(*) FROM condition_state WHERE dag = $1) AS conditions,
       (SELECT count(*) FROM state_value WHERE dag = $1 AND value IS NOT NULL) AS state_values,
       (SELECT count(*) FROM timer WHERE dag = $1) AS timers,
       (SELECT count(*) FROM dag_subscription WHERE dag = $1) AS subscriptions,
       (SELECT count(*) FROM dead_letter WHERE dag = $1) AS dead_letters;

-- name: list_live_runs_of_dag
-- Return the runs of DAG $1 that are queued or running, $2 at most.
SELECT run.run_id FROM run_live JOIN run ON run.id = run_live.run WHERE run_live.dag = $1
UNION ALL
SELECT run.run_id FROM run_queue JOIN run ON run.id = run_queue.run WHERE run_queue.dag = $1
LIMIT $2;

-- name: end_collecting_runs
-- Cancel runs of a deleted DAG that collected events.
UPDATE run SET state = 'cancelled', error = 'the DAG was deleted', ended_at = now()
WHERE id = ANY($1::bigint[]) AND state = 'queued';

-- name: delete_schedule_of_dag
-- Delete what the schedule of DAG $1 keeps: subscriptions, timers, what is pending, the pin.
WITH subscriptions AS (DELETE FROM dag_subscription WHERE dag = $1),
patterns AS (DELETE FROM pattern_subscription WHERE dag = $1),
timers AS (DELETE FROM timer WHERE dag = $1),
pending AS (DELETE FROM pending_event WHERE dag = $1),
conditions AS (DELETE FROM condition_state WHERE dag = $1),
values AS (DELETE FROM state_value WHERE dag = $1),
backfills AS (
    UPDATE backfill SET open = false, state = 'cancelled', reason = 'the DAG was deleted',
                        ended_at = now()
    WHERE dag = $1 AND open
),
pins AS (DELETE FROM dag_pin WHERE dag = $1)
UPDATE dag_state SET
    missing_since = NULL, catch_up_from = NULL, paused = false, canary = NULL, canary_share = NULL,
    canary_source = NULL, canary_since = NULL, backfills = 0, apart = 0, edits = edits + 1
WHERE dag = $1;

-- name: retire_dag
-- Retire DAG $1, if it is not retired yet.
UPDATE dag SET present = false, version = 0, retired_at = coalesce(retired_at, now())
WHERE id = $1;

-- name: delete_dag_with_history
-- Give DAG $1 the name $2, as its runs go by and by, and delete its dead letters.
WITH renamed AS (UPDATE dag SET dag_id = $2 WHERE id = $1),
letters AS (DELETE FROM dead_letter WHERE dag = $1),
backfills AS (DELETE FROM backfill WHERE dag = $1)
INSERT INTO dag_deletion (dag, dag_id, deleted_by) VALUES ($1, $3, $4);

-- name: list_deleted_dags
-- Return the deleted DAGs whose runs are not removed yet.
SELECT dag, dag_id, deleted_by FROM dag_deletion ORDER BY dag;

-- name: list_ended_runs_of_dag
-- Return ended runs of DAG $1, $2 at most.
SELECT id FROM run WHERE dag = $1 AND ended_at IS NOT NULL ORDER BY run_id LIMIT $2;

-- name: delete_alerts_of_runs
-- Delete the alerts and callbacks of runs, and what is to happen at a time for them.
WITH callbacks AS (DELETE FROM callback WHERE run = ANY($1::bigint[])),
timers AS (DELETE FROM timer WHERE run = ANY($1::bigint[]))
DELETE FROM alert WHERE run = ANY($1::bigint[]);

-- name: forget_deleted_dag
-- Delete the versions and the state of a deleted DAG without runs; return its row, which stays under
-- its new name: events name the DAGs that led to them.
WITH found AS (
    SELECT dag FROM dag_deletion
    WHERE dag = $1 AND NOT EXISTS (SELECT FROM run WHERE run.dag = $1)
), versions AS (
    DELETE FROM dag_version USING found WHERE dag_version.dag = found.dag
), states AS (
    DELETE FROM dag_state USING found WHERE dag_state.dag = found.dag
)
DELETE FROM dag_deletion USING found WHERE dag_deletion.dag = found.dag
RETURNING dag_deletion.dag_id;
