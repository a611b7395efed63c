-- The manager's transaction: lock, read, and write what was decided.

-- name: plan_once
-- Keep the plans of statements, whatever their arguments, until the connection is given back.
SELECT set_config('plan_cache_mode', 'force_generic_plan', false);

-- name: lock_runs
-- Lock the live runs among $1, in order, and return their progress.
SELECT run, dag, version, progress, info
FROM run_live
WHERE run = ANY($1::bigint[])
ORDER BY run
FOR UPDATE;

-- name: read_live_tasks
-- Return the live rows of the given task instances; their runs are locked.
SELECT t.run, t.node, t.map_index, t.attempt, t.delivery, t.crashes, t.state, t.chained, t.worker,
       t.queued_at, t.started_at, t.waiting, t.base
FROM unnest($1::bigint[], $2::int[], $3::int[]) AS asked (run, node, map_index)
JOIN task_live AS t USING (run, node, map_index);

-- name: read_run_live_tasks
-- Return every live row of the given runs; they are locked.
SELECT run, node, map_index, attempt, delivery, crashes, state, chained, worker, queued_at,
       started_at, waiting, base
FROM task_live
WHERE run = ANY($1::bigint[])
ORDER BY run, node, map_index;

-- name: find_chained_runs
-- Return the runs in which a worker has tasks that no message covers.
SELECT DISTINCT run FROM task_live WHERE worker = $1 AND chained ORDER BY run;

-- name: name_datasets
-- Make the datasets $1 known that are not; those who subscribe by pattern get them; return all ids.
WITH asked AS (
    SELECT DISTINCT uri FROM unnest($1::text[]) AS asked (uri) ORDER BY uri
), made AS (
    INSERT INTO dataset (uri) SELECT uri FROM asked
    ON CONFLICT (uri) DO NOTHING
    RETURNING id, uri
), subscribed AS (
    INSERT INTO subscription (dataset, dag)
    SELECT DISTINCT made.id, pattern.dag FROM made JOIN pattern ON made.uri ~ pattern.expression
    ON CONFLICT DO NOTHING
)
SELECT id, uri FROM made
UNION ALL
SELECT dataset.id, dataset.uri FROM dataset JOIN asked USING (uri);

-- name: lock_gates
-- Lock, in order, the gates of the DAGs $2 and of those that subscribe to the datasets $1. It looks
-- at event_wait to hold that against those who look for events, and to do so before any gate.
SELECT gate.dag, gate.version, gate.paused, gate.active, gate.queued, gate.since, dag.present,
       EXISTS (SELECT FROM event_wait) AS awaited
FROM gate JOIN dag ON dag.id = gate.dag
WHERE gate.dag = ANY($2::int[])
   OR gate.dag IN (SELECT s.dag FROM subscription AS s WHERE s.dataset = ANY($1::int[]))
ORDER BY gate.dag
FOR UPDATE OF gate;

-- name: read_cells
-- Return cells; their gates are locked.
SELECT cell.dag, cell.key, cell.state
FROM unnest($1::int[], $2::text[]) AS asked (dag, key) JOIN cell USING (dag, key);

-- name: read_open_cells
-- Return the cells of DAGs in which something is pending or forming; their gates are locked.
SELECT dag, key, state FROM cell WHERE dag = ANY($1::int[]) AND open;

-- name: number_events
-- Take $1 event ids, under the gates' locks, so that ids and order agree for every DAG; return them,
-- the cells asked for, and id 0 when somebody may wait for an event of the datasets $4.
SELECT nextval('event_id') AS id, NULL::int AS dag, NULL::text AS key, NULL::bytea AS state
FROM generate_series(1, $1)
UNION ALL
SELECT NULL, cell.dag, cell.key, cell.state
FROM unnest($2::int[], $3::text[]) AS asked (dag, key) JOIN cell USING (dag, key)
UNION ALL
SELECT 0, NULL, NULL, NULL
WHERE EXISTS (SELECT FROM event_wait WHERE dataset = ANY($4::int[]) OR dataset IS NULL);

-- name: take_run_numbers
-- Take a block of 1,000 run numbers; returns the first.
SELECT nextval('run_number');

-- name: claim_event_keys
-- Claim keys for new events, in order; returns the keys that were free.
INSERT INTO event_key (key, event_id)
SELECT key, event_id FROM unnest($1::text[], $2::uuid[]) AS n (key, event_id) ORDER BY key
ON CONFLICT (key) DO NOTHING
RETURNING key;

-- name: find_event_keys
-- Return the events that were posted under the keys $1 before.
SELECT key, event_id FROM event_key WHERE key = ANY($1::text[]);

-- name: find_recorded_events
-- Return which of the events $1 are recorded.
SELECT event_id FROM event WHERE event_id = ANY($1::uuid[]);

-- name: record_fates
-- Note what became of events that no run consumes.
INSERT INTO event_fate (event, dag, place, cell, fate, reason)
SELECT * FROM unnest($1::bigint[], $2::int[], $3::smallint[], $4::text[], $5::text[], $6::text[])
ON CONFLICT (event, dag, place, cell) DO UPDATE SET
    fate = excluded.fate, reason = excluded.reason, at = now();

-- name: expire_pending
-- Take what is too old out of places: dag, cell, place, and the time before which it is.
WITH expired AS (
    DELETE FROM pending
    USING unnest($1::int[], $2::text[], $3::smallint[], $4::timestamptz[])
            AS old (dag, cell, place, before), event
    WHERE pending.dag = old.dag AND pending.cell = old.cell AND pending.place = old.place
      AND event.id = pending.event
      AND least(event.time, event.recorded_at) < old.before
    RETURNING pending.event, pending.dag, pending.place, pending.cell
)
INSERT INTO event_fate (event, dag, place, cell, fate, reason)
SELECT event, dag, place, cell, 'expired', 'too old when the condition held' FROM expired
ON CONFLICT DO NOTHING;

-- name: drop_pending
-- Take everything out of places: dag, cell, place, with the fate and the reason.
WITH dropped AS (
    DELETE FROM pending
    USING unnest($1::int[], $2::text[], $3::smallint[], $4::text[], $5::text[])
            AS n (dag, cell, place, fate, reason)
    WHERE pending.dag = n.dag AND pending.cell = n.cell AND pending.place = n.place
    RETURNING pending.event, pending.dag, pending.place, pending.cell, n.fate, n.reason
)
INSERT INTO event_fate (event, dag, place, cell, fate, reason) SELECT * FROM dropped
ON CONFLICT DO NOTHING;

-- name: consume_pending
-- Let runs consume what is pending in places: dag, cell, place → run.
WITH consumed AS (
    DELETE FROM pending
    USING unnest($1::int[], $2::text[], $3::smallint[], $4::bigint[])
            AS taken (dag, cell, place, run)
    WHERE pending.dag = taken.dag AND pending.cell = taken.cell AND pending.place = taken.place
    RETURNING taken.run, pending.event, pending.place
)
INSERT INTO run_event (run, event, place)
SELECT run, event, place FROM consumed
ON CONFLICT DO NOTHING;

-- name: read_consumable
-- Return the events that runs are about to consume from places, as tasks will see them.
SELECT taken.run AS consumer, told_event.*, pending.place
FROM unnest($1::int[], $2::text[], $3::smallint[], $4::bigint[])
       AS taken (dag, cell, place, run)
JOIN pending ON pending.dag = taken.dag AND pending.cell = taken.cell
            AND pending.place = taken.place
JOIN told_event ON told_event.id = pending.event
ORDER BY pending.event, pending.place;

-- name: read_history
-- Return the events of a DAG's datasets from id $2 up to id $3, in order, as tasks will see them.
SELECT * FROM told_event
WHERE told_event.dataset IN (SELECT dataset FROM subscription WHERE dag = $1)
  AND told_event.id >= $2 AND told_event.id <= $3
ORDER BY told_event.id
LIMIT $4;

-- name: await_events_under_way
-- Wait for those who record events and do not know of a new subscription yet; others wait for us.
LOCK TABLE subscription IN ACCESS EXCLUSIVE MODE;

-- name: find_run_keys
-- Return the runs that exist under (dag, key).
SELECT run.dag, run.run_key, run.run_id
FROM unnest($1::int[], $2::text[]) AS asked (dag, run_key)
JOIN run USING (dag, run_key);

-- name: queue_runs
-- Put runs over their DAG's limit in line.
INSERT INTO run_queue (dag, run, info)
SELECT dag, run, info FROM unnest($1::int[], $2::bigint[], $3::bytea[])
  WITH ORDINALITY AS n (dag, run, info, position)
ORDER BY position;

-- name: take_queued_runs
-- Take the first $2 runs in line of a DAG; its gate is locked.
WITH taken AS (
    DELETE FROM run_queue
    WHERE dag = $1 AND position IN (
        SELECT position FROM run_queue WHERE dag = $1 ORDER BY position LIMIT $2
    )
    RETURNING position, run, info, progress
)
SELECT taken.run, taken.info, taken.progress, run.version
FROM taken JOIN run ON run.id = taken.run
ORDER BY taken.position;

-- name: start_runs
-- Start runs that were in line.
UPDATE run SET state = 'running', started_at = now()
WHERE id = ANY($1::bigint[]) AND state = 'queued';

-- name: unqueue_run
-- Take a cancelled run out of the line; returns its DAG.
DELETE FROM run_queue WHERE run = $1 RETURNING dag, progress;

-- name: rewrite_tasks
-- Change live tasks: a new attempt or delivery, started, or waiting for a retry.
UPDATE task_live SET
    attempt = n.attempt, delivery = n.delivery, crashes = n.crashes, state = n.state,
    chained = n.chained, worker = n.worker, started_at = n.started_at, waiting = n.waiting,
    queued_at = CASE WHEN n.state = 'queued' THEN now() ELSE task_live.queued_at END
FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[], $5::int[], $6::int[], $7::text[],
            $8::boolean[], $9::text[], $10::timestamptz[], $11::bytea[])
  AS n (run, node, map_index, attempt, delivery, crashes, state, chained, worker, started_at,
        waiting)
WHERE task_live.run = n.run AND task_live.node = n.node AND task_live.map_index = n.map_index;

-- name: record_attempts
-- Record attempts that another one follows.
INSERT INTO attempt (run, node, map_index, attempt, delivery, worker, started_at, ended_at, error)
SELECT n.run, n.node, n.map_index, n.attempt, n.delivery, n.worker, n.started_at,
       coalesce(n.ended_at, now()), n.error
FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[], $5::int[], $6::text[],
            $7::timestamptz[], $8::timestamptz[], $9::jsonb[])
  AS n (run, node, map_index, attempt, delivery, worker, started_at, ended_at, error)
ON CONFLICT DO NOTHING;

-- name: record_logs
-- Keep pieces of output; a redelivered piece is there already.
INSERT INTO log (run, node, map_index, attempt, delivery, sequence, text)
SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[], $5::int[], $6::int[],
                     $7::text[])
ON CONFLICT DO NOTHING;

-- name: set_timers
-- Set timers.
INSERT INTO timer (due_at, kind, dag, run, node, map_index, attempt, cell)
SELECT * FROM unnest($1::timestamptz[], $2::text[], $3::int[], $4::bigint[], $5::int[], $6::int[],
                     $7::int[], $8::text[])
ON CONFLICT DO NOTHING;

-- name: take_timers
-- Take timers that are due: whoever deletes a row acts on it.
DELETE FROM timer WHERE id = ANY($1::bigint[])
RETURNING id;

-- name: drop_run_timers
-- Forget the timers of runs that have ended.
DELETE FROM timer WHERE run = ANY($1::bigint[]);

-- name: read_results
-- Return the results of nodes of runs, in map order; only successful instances have one.
SELECT task.run, task.node, task.map_index, task.result, octet_length(task.result) AS size
FROM unnest($1::bigint[], $2::int[]) AS asked (run, node)
JOIN task USING (run, node)
WHERE task.state = 'success'
ORDER BY task.run, task.node, task.map_index;

-- name: read_collected
-- Return runs that collect events, with what they have so far.
SELECT run.id, run.run_id, run.run_key, run.kind, run.cause, run.logical_time, run.partition,
       run.created_at
FROM run WHERE run.id = ANY($1::bigint[]);

-- name: read_collected_events
-- Return the events that runs have collected, as tasks will see them.
SELECT run_event.run AS consumer, told_event.*, run_event.place
FROM run_event
JOIN told_event ON told_event.id = run_event.event
WHERE run_event.run = ANY($1::bigint[])
ORDER BY run_event.event, run_event.place
LIMIT $2;

-- name: admit_collected
-- Start runs that have collected their events, or put them in line.
UPDATE run SET
    version = n.version, params = n.params, cause = n.cause, state = n.state,
    started_at = CASE WHEN n.state = 'running' THEN now() END
FROM unnest($1::bigint[], $2::bigint[], $3::jsonb[], $4::text[], $5::text[])
  AS n (id, version, params, cause, state)
WHERE run.id = n.id AND run.state = 'queued';

-- name: refuse_collected
-- Remove runs that cannot be: their events are dead.
WITH gone AS (
    DELETE FROM run_event
    USING unnest($1::bigint[], $2::int[], $3::text[], $4::text[]) AS n (run, dag, cell, reason)
    WHERE run_event.run = n.run
    RETURNING run_event.event, n.dag, run_event.place, n.cell, n.reason
), fates AS (
    INSERT INTO event_fate (event, dag, place, cell, fate, reason)
    SELECT event, dag, place, cell, 'dead', reason FROM gone
    ON CONFLICT DO NOTHING
)
DELETE FROM run WHERE id = ANY($1::bigint[]) AND state = 'queued';

-- name: record_dead_letters
-- Keep what could not be done.
INSERT INTO dead_letter (kind, subject, dag, payload, reason)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::bytea[], $5::text[]);

-- name: save_heartbeats
-- Note which workers live.
INSERT INTO worker (worker, host, pid, slots, busy)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::int[], $5::int[])
ON CONFLICT (worker) DO UPDATE SET seen_at = now(), busy = excluded.busy, slots = excluded.slots;

-- name: forget_worker
-- A worker is no more.
DELETE FROM worker WHERE worker = $1;

-- name: read_versions
-- Return DAG versions.
SELECT id, dag, spec FROM dag_version WHERE id = ANY($1::bigint[]);

-- name: find_dags
-- Return DAGs by their names.
SELECT id, dag_id, present, version FROM dag WHERE dag_id = ANY($1::text[]);

-- name: find_runs
-- Return runs by what outsiders call them.
SELECT id, run_id, dag, state, version FROM run WHERE run_id = ANY($1::uuid[]);

-- name: read_recorded
-- Return the events of a DAG's datasets recorded in [$2, $3), of dataset $4 alone if it is given,
-- with ids below $6.
SELECT * FROM told_event
WHERE told_event.dataset IN (SELECT dataset FROM subscription WHERE subscription.dag = $1)
  AND told_event.recorded_at >= $2 AND ($3::timestamptz IS NULL OR told_event.recorded_at < $3)
  AND ($4::text IS NULL OR told_event.uri = $4) AND told_event.id < $6
ORDER BY told_event.id
LIMIT $5;

-- name: read_named_events
-- Return events by what outsiders call them, in order.
SELECT * FROM told_event
WHERE told_event.event_id = ANY($1::uuid[])
ORDER BY told_event.id;

-- name: read_dead_places
-- Return the places of a DAG in which events are dead.
SELECT event, place FROM event_fate
WHERE dag = $1 AND event = ANY($2::bigint[]) AND fate = 'dead'
ORDER BY event, place;

-- name: revive_events
-- Events are dead no more for a DAG.
DELETE FROM event_fate
USING unnest($1::bigint[], $2::int[]) AS n (event, dag)
WHERE event_fate.event = n.event AND event_fate.dag = n.dag AND event_fate.fate = 'dead';

-- name: name_dags
-- Return the names of DAGs.
SELECT id, dag_id FROM dag WHERE id = ANY($1::int[]);

-- name: read_gate_revision
-- Return what a DAG's revision is made of; its gate is locked.
SELECT version, changes FROM gate WHERE dag = $1;

-- name: count_change
-- Note that somebody has changed a DAG; its gate is locked.
UPDATE gate SET changes = changes + 1 WHERE dag = $1;

-- name: take_dead_letter
-- Lock a dead letter and return it.
SELECT id, kind, subject, dag, payload, resent_at FROM dead_letter WHERE id = $1 FOR UPDATE;

-- name: mark_resent
-- Note that a dead letter was sent again.
UPDATE dead_letter SET resent_at = now() WHERE id = $1;

-- name: read_ended_runs
-- Return runs by their numbers.
SELECT id, run_id, version FROM run WHERE id = ANY($1::bigint[]);

-- name: close_run
-- Finish a run that never started.
UPDATE run SET state = 'cancelled', error = $2, ended_at = now()
WHERE id = $1 AND state = 'queued';

-- name: write_batch
-- Write what nearly every batch changes, each table by its own columns of arrays, in one statement:
-- a round trip costs more than a table. Nothing here depends on another part.
WITH
-- Append events to the log; trails come as texts such as {1,2}.
events AS (
    INSERT INTO event (id, event_id, dataset, extra, partition, time, source, run, node, map_index,
                       trail, recorded_at, trace)
    SELECT id, event_id, dataset, extra, partition, time, source, run, node, map_index,
           trail::int[], recorded_at, trace
    FROM unnest($1::bigint[], $2::uuid[], $3::int[], $4::jsonb[], $5::text[], $6::timestamptz[],
                $7::text[], $8::bigint[], $9::int[], $10::int[], $11::text[], $12::timestamptz[],
                $77::text[])
      AS n (id, event_id, dataset, extra, partition, time, source, run, node, map_index, trail,
            recorded_at, trace)
),
-- Create runs; those that are not in line start now, and some end at once.
runs AS (
    INSERT INTO run (id, run_id, dag, version, run_key, kind, state, params, logical_time,
                     partition, cause, error, started_at, ended_at)
    SELECT n.id, n.run_id, n.dag, n.version, n.run_key, n.kind, n.state, n.params, n.logical_time,
           n.partition, n.cause, n.error,
           CASE WHEN n.state <> 'queued' THEN now() END,
           CASE WHEN n.state NOT IN ('queued', 'running') THEN now() END
    FROM unnest($13::bigint[], $14::uuid[], $15::int[], $16::bigint[], $17::text[], $18::text[],
                $19::text[], $20::jsonb[], $21::timestamptz[], $22::text[], $23::text[],
                $24::text[])
      AS n (id, run_id, dag, version, run_key, kind, state, params, logical_time, partition, cause,
            error)
),
-- Note which events runs consumed.
consumed AS (
    INSERT INTO run_event (run, event, place)
    SELECT * FROM unnest($25::bigint[], $26::bigint[], $27::smallint[])
    ON CONFLICT DO NOTHING
),
-- Take finished tasks out of the live table.
removed AS (
    DELETE FROM task_live
    USING unnest($28::bigint[], $29::int[], $30::int[]) AS n (run, node, map_index)
    WHERE task_live.run = n.run AND task_live.node = n.node AND task_live.map_index = n.map_index
),
-- Record how tasks ended.
ended AS (
    INSERT INTO task (run, node, map_index, attempt, state, worker, queued_at, started_at, ended_at,
                      length, result, error)
    SELECT n.run, n.node, n.map_index, n.attempt, n.state, n.worker, n.queued_at, n.started_at,
           coalesce(n.ended_at, now()), n.length, n.result, n.error
    FROM unnest($31::bigint[], $32::int[], $33::int[], $34::int[], $35::text[], $36::text[],
                $37::timestamptz[], $38::timestamptz[], $39::timestamptz[], $40::int[],
                $41::bytea[], $42::jsonb[])
      AS n (run, node, map_index, attempt, state, worker, queued_at, started_at, ended_at, length,
            result, error)
),
-- Make rows for tasks that are handed out, that wait, or that a runner went straight on with.
live AS (
    INSERT INTO task_live (run, node, map_index, attempt, delivery, state, chained, worker,
                           started_at, waiting)
    SELECT * FROM unnest($43::bigint[], $44::int[], $45::int[], $46::int[], $47::int[],
                         $48::text[], $49::boolean[], $50::text[], $51::timestamptz[],
                         $52::bytea[])
),
-- Give running runs their progress.
opened AS (
    INSERT INTO run_live (run, dag, version, progress, info)
    SELECT * FROM unnest($53::bigint[], $54::int[], $55::bigint[], $56::bytea[], $57::bytea[])
),
-- Write the progress of runs back.
progressed AS (
    UPDATE run_live SET progress = new.progress
    FROM unnest($58::bigint[], $59::bytea[]) AS new (run, progress)
    WHERE run_live.run = new.run
),
-- Finish runs that existed before.
gone AS (
    DELETE FROM run_live WHERE run = ANY($60::bigint[])
),
closed AS (
    UPDATE run SET state = n.state, error = n.error, ended_at = now()
    FROM unnest($60::bigint[], $61::text[], $62::text[]) AS n (run, state, error)
    WHERE run.id = n.run AND run.state IN ('queued', 'running')
),
-- Keep events for the places that have not consumed them.
kept AS (
    INSERT INTO pending (dag, cell, place, event)
    SELECT * FROM unnest($63::int[], $64::text[], $65::smallint[], $66::bigint[])
),
cells AS (
    INSERT INTO cell (dag, key, state, open)
    SELECT * FROM unnest($67::int[], $68::text[], $69::bytea[], $70::boolean[])
    ON CONFLICT (dag, key) DO UPDATE SET state = excluded.state, open = excluded.open
),
-- Tell what happened.
told AS (
    INSERT INTO news (body) SELECT * FROM unnest($76::bytea[])
)
UPDATE gate SET
    paused = new.paused, active = new.active, queued = new.queued, since = new.since
FROM unnest($71::int[], $72::boolean[], $73::int[], $74::int[], $75::bigint[])
  AS new (dag, paused, active, queued, since)
WHERE gate.dag = new.dag;
