-- Callbacks: calls of functions and notifiers after outcomes.

-- name: record_callbacks
-- Insert the calls that follow from outcomes of tasks and runs.
INSERT INTO callback (kind, position, name, dag_id, run, node, task_id, map_index, attempt, outcome,
                      reason, source)
SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::bigint[], $6::int[],
                     $7::text[], $8::int[], $9::int[], $10::text[], $11::text[], $12::text[]);

-- name: read_next_callback_seconds
-- Return in how many seconds the next call is due; null if there is none.
SELECT extract(epoch FROM min(due_at) - now())::float8 FROM callback WHERE ended_at IS NULL;

-- name: claim_callbacks
-- Claim up to $1 due calls for $2 seconds, and return them with their runs.
WITH due AS (
    SELECT id FROM callback
    WHERE ended_at IS NULL AND due_at <= now()
    ORDER BY due_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE callback
    SET state = 'running', tries = tries + 1, due_at = now() + make_interval(secs => $2)
    FROM due WHERE callback.id = due.id
    RETURNING callback.*
)
SELECT claimed.*, run.run_id, run.kind AS run_kind, run.params, run.logical_time, run.partition,
       run.cause, run.created_at AS run_created_at, alert.text
FROM claimed
LEFT JOIN run ON run.id = claimed.run
LEFT JOIN alert ON alert.id = claimed.alert
ORDER BY claimed.id;

-- name: list_failed_tasks
-- Return the failed tasks of a run, with their errors.
SELECT node, map_index, attempt, error FROM task
WHERE run = $1 AND state = 'failed'
ORDER BY node, map_index
LIMIT $2;

-- name: renew_callback
-- Keep a claimed call for $3 more seconds; return no row if another daemon has claimed it.
UPDATE callback SET due_at = now() + make_interval(secs => $3)
WHERE id = $1 AND tries = $2 AND state = 'running'
RETURNING id;

-- name: end_callback
-- Record how a try of a call ended: state, error, output, and when it is tried again, if it is. One
-- that has failed for good opens an alert, which the next success of the same callback ends.
WITH done AS (
    UPDATE callback SET state = $3, error = $4, output = $5, due_at = coalesce($6, due_at),
           ended_at = CASE WHEN $6::timestamptz IS NULL THEN now() END
    WHERE id = $1 AND tries = $2 AND state = 'running'
    RETURNING *, coalesce(dag_id, dataset, '') AS subject,
              concat_ws(':', kind, task_id, number, position) AS callback_key
), opened AS (
    INSERT INTO alert (kind, subject, key, text, dag_id, run, dataset, since)
    SELECT 'callback', subject, callback_key,
           'callback ' || name || ' of '
               || concat_ws(' ', coalesce('DAG ' || dag_id, 'dataset ' || dataset),
                            'task ' || task_id)
               || ' (' || kind || ') has failed: ' || coalesce(error, ''),
           dag_id, run, dataset, now()
    FROM done WHERE state = 'failed'
    ON CONFLICT DO NOTHING
), closed AS (
    UPDATE alert SET ended_at = now(), ending = 'the callback has succeeded'
    FROM done
    WHERE done.state = 'success' AND alert.kind = 'callback' AND alert.subject = done.subject
      AND alert.key = done.callback_key AND alert.ended_at IS NULL
)
SELECT id FROM done;

-- name: list_callbacks_of_run
-- Return the calls of a run; those of one task instance if a node is given.
SELECT id, kind, name, attempt, state, tries, error, output, created_at, ended_at
FROM callback
WHERE run = $1 AND ($2::int IS NULL AND node IS NULL OR node = $2 AND map_index = $3)
ORDER BY id
LIMIT $4;

-- name: delete_old_callbacks
-- Delete up to $2 calls that ended $1 days ago or earlier.
DELETE FROM callback WHERE id IN (
    SELECT id FROM callback WHERE ended_at < now() - make_interval(days => $1) LIMIT $2
);
