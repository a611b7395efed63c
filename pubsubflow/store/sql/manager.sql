-- The manager's transaction: lock, read, and write the result.

-- name: use_generic_plans
-- Use generic plans on this connection until it is released. They are priced for as many rows as a
-- dataset has subscriptions, while most find a few: to compile them takes longer than they do.
SELECT set_config('plan_cache_mode', 'force_generic_plan', false), set_config('jit', 'off', false);

-- name: take_rank
-- Take the lowest rank that no other manager has, until the connection ends, and return it; none if
-- all are taken.
SELECT rank FROM generate_series(0, 8) AS rank WHERE pg_try_advisory_lock(7233041, rank) LIMIT 1;

-- name: has_managers
-- Return whether any manager is connected: the first nine have a rank, see take_rank.
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND classid = 7233041 AND objsubid = 2 AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
);

-- name: lock_runs
-- Lock the live runs among $1, in order, and return their progress, with the tags that are limited;
-- then, called once more without runs, return the live rows of the task instances $2, $3, $4.
-- The call that locks would read tasks as they were before it waited: reading is another's.
-- Reading pool holds off lock_tag_limits: no task is handed out by the limits of before.
WITH locked AS (
    SELECT run, version, progress, info, source,
           (SELECT array_agg(name) FROM pool WHERE starts_with(name, 'tag:')) AS tag_limits
    FROM run_live
    WHERE run = ANY($1::bigint[])
    ORDER BY run
    FOR UPDATE
)
SELECT *, NULL::int AS node, NULL::int AS map_index, NULL::int AS attempt, NULL::bigint AS delivery,
       NULL::int AS crashes, NULL::text AS state, NULL::boolean AS chained, NULL::text AS worker,
       NULL::timestamptz AS queued_at, NULL::timestamptz AS started_at, NULL::bytea AS wait_set,
       NULL::int AS prior_attempts, NULL::boolean AS direct
FROM locked
UNION ALL
SELECT t.run, NULL, NULL, NULL, NULL, NULL,
       t.node, t.map_index, t.attempt, t.delivery, t.crashes, t.state, t.chained, t.worker,
       t.queued_at, t.started_at, t.wait_set, t.prior_attempts, t.direct
FROM unnest($2::bigint[], $3::int[], $4::int[]) AS requested (run, node, map_index)
JOIN task_live AS t USING (run, node, map_index);

-- name: read_progress_chunks
-- Return the chunks of the progress of runs that are locked, in order.
SELECT run, progress FROM progress_chunk WHERE run = ANY($1::bigint[]) ORDER BY run, number;

-- name: delete_progress_chunks
-- Delete the chunks of the progress of runs that have ended.
DELETE FROM progress_chunk WHERE run = ANY($1::bigint[]);

-- name: read_live_tasks_of_runs
-- Return every live row of runs; they are locked.
SELECT run, node, map_index, attempt, delivery, crashes, state, chained, worker, queued_at,
       started_at, wait_set, prior_attempts, direct
FROM task_live
WHERE run = ANY($1::bigint[])
ORDER BY run, node, map_index;

-- name: find_chained_runs
-- Return the runs in which a worker has chained tasks, or such that it was given directly.
SELECT DISTINCT run FROM task_live WHERE worker = $1 AND (chained OR direct) ORDER BY run;

-- name: register_datasets
-- Insert the datasets among $1 that do not exist, subscribe the DAGs whose patterns match, and
-- return all ids.
WITH requested AS (
    SELECT DISTINCT uri FROM unnest($1::text[]) AS requested (uri) ORDER BY uri
), made AS (
    INSERT INTO dataset (uri) SELECT uri FROM requested
    ON CONFLICT (uri) DO NOTHING
    RETURNING id, uri
), subscribed AS (
    INSERT INTO dag_subscription (dataset, dag)
    SELECT DISTINCT made.id, p.dag FROM made
    JOIN pattern_subscription AS p ON made.uri ~ p.expression
    ON CONFLICT DO NOTHING
)
SELECT id, uri FROM made
UNION ALL
SELECT dataset.id, dataset.uri FROM dataset JOIN requested USING (uri);

-- name: lock_dag_states
-- Lock, in order, the states of the DAGs $2 and of the DAGs that subscribe to the datasets $1; then,
-- called once more without these, allocate $3 event ids and return them in one row, with whether a
-- wait may match an event of the datasets $4; and the conditions' states of the DAGs that subscribe to
-- these datasets.
-- The ids are taken once the states of the DAGs are locked, so ids and commits have the same order
-- for every DAG; and what was waited for is read by a call that began after the wait.
WITH locked AS (
    SELECT s.dag, s.version, s.source, s.paused, s.missing_since IS NOT NULL AS missing, s.active,
           s.queued, s.catch_up_from, s.backfills, s.apart, dag.present, s.canary, s.canary_share,
           s.canary_source, s.xmin AS written,
           (SELECT array_agg(name) FROM pool
            WHERE starts_with(name, 'tag:') OR starts_with(name, 'runs:tag:')) AS tag_limits,
           -- Read for the lock on event_wait alone: it holds off lock_event_waits, and it is taken
           -- before any dag_state is, so the two cannot deadlock.
           EXISTS (SELECT FROM event_wait) AS awaited
    FROM dag_state AS s JOIN dag ON dag.id = s.dag
    -- One array for both: with OR all states there are would be looked through. Dataset by dataset,
    -- and repeated DAGs stay: for fewer rows than the planner expects of some datasets it would read
    -- all subscriptions in the order of DAGs.
    WHERE s.dag = ANY(ARRAY(
            SELECT unnest($2::int[])
            UNION ALL
            SELECT subscribed.dag
            FROM unnest($1::int[]) AS requested (dataset)
            CROSS JOIN LATERAL (
                SELECT d.dag FROM dag_subscription AS d WHERE d.dataset = requested.dataset OFFSET 0
            ) AS subscribed))
    ORDER BY s.dag
    FOR UPDATE OF s
)
SELECT *, NULL::bigint[] AS event_ids, NULL::text AS partition_key, NULL::bytea AS state,
       NULL::int AS dataset
FROM locked
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, EXISTS (SELECT FROM event_wait WHERE dataset = ANY($4::int[]) OR dataset IS NULL),
       ARRAY(SELECT nextval('event_id') FROM generate_series(1, $3::int)), NULL, NULL, NULL
WHERE $3::int > 0
UNION ALL
SELECT subscribed.dag, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       c.xmin, NULL, NULL, NULL, '', c.state, requested.dataset
FROM unnest($4::int[]) AS requested (dataset)
CROSS JOIN LATERAL (
    SELECT d.dag FROM dag_subscription AS d WHERE d.dataset = requested.dataset OFFSET 0
) AS subscribed
LEFT JOIN LATERAL (
    SELECT state.xmin, state.state FROM condition_state AS state
    WHERE state.dag = subscribed.dag AND state.partition_key = '' OFFSET 0
) AS c ON true;

-- name: read_condition_states
-- Return condition states; their DAGs are locked.
SELECT condition_state.dag, condition_state.partition_key, condition_state.state
FROM unnest($1::int[], $2::text[]) AS requested (dag, partition_key)
JOIN condition_state USING (dag, partition_key);

-- name: read_open_condition_states
-- Return the condition states of DAGs in which events are pending or a run is collecting; the DAGs
-- are locked.
SELECT dag, partition_key, state FROM condition_state WHERE dag = ANY($1::int[]) AND open;

-- name: allocate_run_ids
-- Allocate a block of 1,000 run ids and return the first.
SELECT nextval('run_number');

-- name: claim_idempotency_keys
-- Insert idempotency keys, in order, and return those that were free.
INSERT INTO idempotency_key (key, event_id)
SELECT key, event_id FROM unnest($1::text[], $2::uuid[]) AS n (key, event_id) ORDER BY key
ON CONFLICT (key) DO NOTHING
RETURNING key;

-- name: find_idempotency_keys
-- Return the events that were posted under the keys $1.
SELECT key, event_id FROM idempotency_key WHERE key = ANY($1::text[]);

-- name: claim_requests
-- Insert the idempotency keys of requests, in order, with digests of their bodies.
INSERT INTO idempotency_key (key, event_id, body)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::bytea[]) AS n (key, event_id, body) ORDER BY key
ON CONFLICT (key) DO NOTHING;

-- name: find_requests
-- Return the digests of the bodies that were sent under the keys $1.
SELECT key, body FROM idempotency_key WHERE key = ANY($1::text[]);

-- name: find_recorded_events
-- Return which of the events $1 are recorded, in the log or held.
SELECT event_id FROM event WHERE event_id = ANY($1::uuid[])
UNION ALL
SELECT event_id FROM held_event WHERE event_id = ANY($1::uuid[]);

-- name: record_event_outcomes
-- Record the outcomes of events that no run consumes.
INSERT INTO event_outcome (event, dag, input, partition_key, outcome, reason)
SELECT * FROM unnest($1::bigint[], $2::int[], $3::smallint[], $4::text[], $5::text[], $6::text[])
ON CONFLICT (event, dag, input, partition_key) DO UPDATE SET
    outcome = excluded.outcome, reason = excluded.reason, at = now();

-- name: expire_pending_events
-- Expire pending events from before a time: dag, partition, input, time.
WITH expired AS (
    DELETE FROM pending_event
    USING unnest($1::int[], $2::text[], $3::smallint[], $4::timestamptz[])
            AS old (dag, partition_key, input, before), event
    WHERE pending_event.dag = old.dag AND pending_event.partition_key = old.partition_key
      AND pending_event.input = old.input AND event.id = pending_event.event
      AND least(event.time, event.recorded_at) < old.before
    RETURNING pending_event.event, pending_event.dag, pending_event.input,
              pending_event.partition_key
)
INSERT INTO event_outcome (event, dag, input, partition_key, outcome, reason)
SELECT event, dag, input, partition_key, 'expired', 'too old when the condition held' FROM expired
ON CONFLICT DO NOTHING;

-- name: drop_pending_events
-- Delete all pending events of inputs, with an outcome and its reason: dag, partition, input,
-- outcome, reason.
WITH dropped AS (
    DELETE FROM pending_event
    USING unnest($1::int[], $2::text[], $3::smallint[], $4::text[], $5::text[])
            AS n (dag, partition_key, input, outcome, reason)
    WHERE pending_event.dag = n.dag AND pending_event.partition_key = n.partition_key
      AND pending_event.input = n.input
    RETURNING pending_event.event, pending_event.dag, pending_event.input,
              pending_event.partition_key, n.outcome, n.reason
)
INSERT INTO event_outcome (event, dag, input, partition_key, outcome, reason) SELECT * FROM dropped
ON CONFLICT DO NOTHING;

-- name: consume_pending_events
-- Move all pending events of inputs to runs: dag, partition, input → run.
WITH consumed AS (
    DELETE FROM pending_event
    USING unnest($1::int[], $2::text[], $3::smallint[], $4::bigint[])
            AS taken (dag, partition_key, input, run)
    WHERE pending_event.dag = taken.dag AND pending_event.partition_key = taken.partition_key
      AND pending_event.input = taken.input
    RETURNING taken.run, pending_event.event, pending_event.input
)
INSERT INTO run_event (run, event, input)
SELECT run, event, input FROM consumed
ON CONFLICT DO NOTHING;

-- name: read_events_to_consume
-- Return the events that runs are about to consume: dag, partition, input → run.
SELECT taken.run AS consumer, event_info.*, pending_event.input
FROM unnest($1::int[], $2::text[], $3::smallint[], $4::bigint[])
       AS taken (dag, partition_key, input, run)
JOIN pending_event ON pending_event.dag = taken.dag
                  AND pending_event.partition_key = taken.partition_key
                  AND pending_event.input = taken.input
JOIN event_info ON event_info.id = pending_event.event
ORDER BY pending_event.event, pending_event.input;

-- name: read_events_of_dag
-- Return the events of a DAG's datasets from id $2 to id $3, in order.
SELECT * FROM event_info
WHERE event_info.dataset IN (SELECT dataset FROM dag_subscription WHERE dag = $1)
  AND event_info.id >= $2 AND event_info.id <= $3
ORDER BY event_info.id
LIMIT $4;

-- name: lock_dag_subscriptions
-- Wait for transactions that record events without seeing a new subscription, and block later ones.
LOCK TABLE dag_subscription IN ACCESS EXCLUSIVE MODE;

-- name: find_runs_by_key
-- Return the runs that exist under (dag, key).
SELECT run.dag, run.run_key, run.run_id
FROM unnest($1::int[], $2::text[]) AS requested (dag, run_key)
JOIN run USING (dag, run_key);

-- name: queue_runs
-- Queue runs over their DAG's max_active_runs.
INSERT INTO run_queue (dag, run, info)
SELECT dag, run, info FROM unnest($1::int[], $2::bigint[], $3::bytea[])
  WITH ORDINALITY AS n (dag, run, info, position)
ORDER BY position;

-- name: dequeue_runs
-- Remove the first $2 runs from a DAG's queue and return them; its dag_state is locked.
WITH taken AS (
    DELETE FROM run_queue
    WHERE dag = $1 AND position IN (
        SELECT position FROM run_queue WHERE dag = $1 ORDER BY position LIMIT $2
    )
    RETURNING position, run, info, progress
)
SELECT taken.run, taken.info, taken.progress, run.version, run.source
FROM taken JOIN run ON run.id = taken.run
ORDER BY taken.position;

-- name: start_queued_runs
-- Start runs that were queued.
UPDATE run SET state = 'running', started_at = now()
WHERE id = ANY($1::bigint[]) AND state = 'queued';

-- name: remove_queued_run
-- Remove a run from its queue and return its DAG.
DELETE FROM run_queue WHERE run = $1 RETURNING dag, progress;

-- name: update_live_tasks
-- Update live tasks: a new attempt or delivery, a start, or a wait for a retry.
UPDATE task_live SET
    attempt = n.attempt, delivery = n.delivery, crashes = n.crashes, state = n.state,
    chained = n.chained, worker = n.worker, started_at = n.started_at, wait_set = n.wait_set,
    direct = n.direct,
    queued_at = CASE WHEN n.state = 'queued' THEN now() ELSE task_live.queued_at END
FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[], $5::bigint[], $6::int[], $7::text[],
            $8::boolean[], $9::text[], $10::timestamptz[], $11::bytea[], $12::boolean[])
  AS n (run, node, map_index, attempt, delivery, crashes, state, chained, worker, started_at,
        wait_set, direct)
WHERE task_live.run = n.run AND task_live.node = n.node AND task_live.map_index = n.map_index;

-- name: record_attempts
-- Record attempts that another attempt follows.
INSERT INTO attempt (run, node, map_index, attempt, delivery, worker, started_at, ended_at, error,
                     peak_memory)
SELECT n.run, n.node, n.map_index, n.attempt, n.delivery, n.worker, n.started_at,
       coalesce(n.ended_at, now()), n.error, n.peak_memory
FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[], $5::bigint[], $6::text[],
            $7::timestamptz[], $8::timestamptz[], $9::jsonb[], $10::bigint[])
  AS n (run, node, map_index, attempt, delivery, worker, started_at, ended_at, error, peak_memory)
ON CONFLICT DO NOTHING;

-- name: record_logs
-- Insert chunks of output; a redelivered chunk exists already, one of a removed run comes too late.
INSERT INTO log (run, node, map_index, attempt, delivery, sequence, text)
SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[], $5::bigint[], $6::int[],
                     $7::text[]) AS n (run, node, map_index, attempt, delivery, sequence, text)
WHERE EXISTS (SELECT FROM slice WHERE series = 'run' AND number = n.run >> 32)
ON CONFLICT DO NOTHING;

-- name: set_timers
-- Set timers.
INSERT INTO timer (due_at, kind, dag, run, node, map_index, attempt, key)
SELECT * FROM unnest($1::timestamptz[], $2::text[], $3::int[], $4::bigint[], $5::int[], $6::int[],
                     $7::int[], $8::text[])
ON CONFLICT DO NOTHING;

-- name: claim_timers
-- Delete due timers and return those deleted: only the transaction that deletes a timer acts on it.
DELETE FROM timer WHERE id = ANY($1::bigint[])
RETURNING id;

-- name: release_held_ticks
-- Delete the ticks that a DAG held while it was paused, and return them.
DELETE FROM timer WHERE dag = $1 AND kind = 'held_tick'
RETURNING node AS slot, due_at;

-- name: delete_run_timers
-- Delete the timers of finished runs.
DELETE FROM timer WHERE run = ANY($1::bigint[]);

-- name: name_instances
-- Name instances of mapped tasks that have ended.
UPDATE task SET map_name = n.map_name
FROM unnest($1::bigint[], $2::int[], $3::int[], $4::text[]) AS n (run, node, map_index, map_name)
WHERE task.run = n.run AND task.node = n.node AND task.map_index = n.map_index;

-- name: read_instance_results
-- Return the results of instances of mapped tasks; only successful ones have one.
SELECT task.run, task.node, task.map_index, task.result
FROM unnest($1::bigint[], $2::int[], $3::int[]) AS n (run, node, map_index)
JOIN task USING (run, node, map_index)
WHERE task.state = 'success'
ORDER BY task.run, task.node, task.map_index;

-- name: read_results
-- Return the results of nodes of runs, in map order; only successful instances have one.
SELECT task.run, task.node, task.map_index, task.result, octet_length(task.result) AS size
FROM unnest($1::bigint[], $2::int[]) AS requested (run, node)
JOIN task USING (run, node)
WHERE task.state = 'success'
ORDER BY task.run, task.node, task.map_index;

-- name: read_collecting_runs
-- Return runs that collect events.
SELECT run.id, run.run_id, run.run_key, run.kind, run.cause, run.logical_time, run.partition,
       run.created_at
FROM run WHERE run.id = ANY($1::bigint[]);

-- name: read_collected_events
-- Return the events that runs have collected.
SELECT run_event.run AS consumer, event_info.*, run_event.input
FROM run_event
JOIN event_info ON event_info.id = run_event.event
WHERE run_event.run = ANY($1::bigint[])
ORDER BY run_event.event, run_event.input
LIMIT $2;

-- name: admit_collecting_runs
-- Start or queue runs that have collected their events.
UPDATE run SET
    version = n.version, params = n.params, cause = n.cause, state = n.state, source = n.source,
    started_at = CASE WHEN n.state = 'running' THEN now() END
FROM unnest($1::bigint[], $2::bigint[], $3::jsonb[], $4::text[], $5::text[], $6::text[])
  AS n (id, version, params, cause, state, source)
WHERE run.id = n.id AND run.state = 'queued';

-- name: delete_refused_runs
-- Delete collecting runs that are refused; their events get the outcome `dead`.
WITH gone AS (
    DELETE FROM run_event
    USING unnest($1::bigint[], $2::int[], $3::text[], $4::text[])
            AS n (run, dag, partition_key, reason)
    WHERE run_event.run = n.run
    RETURNING run_event.event, n.dag, run_event.input, n.partition_key, n.reason
), outcomes AS (
    INSERT INTO event_outcome (event, dag, input, partition_key, outcome, reason)
    SELECT event, dag, input, partition_key, 'dead', reason FROM gone
    ON CONFLICT DO NOTHING
)
DELETE FROM run WHERE id = ANY($1::bigint[]) AND state = 'queued';

-- name: record_dead_letters
-- Insert dead letters.
INSERT INTO dead_letter (kind, subject, dag, payload, reason)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::bytea[], $5::text[]);

-- name: save_heartbeats
-- Insert or update workers by their heartbeats.
-- The queues of a worker come as one text, separated by commas: arrays of arrays are flattened.
-- It is not waited for on the disk: what is lost comes again.
INSERT INTO worker (worker, host, pid, slots, busy, queues, free_sync, free_async, version,
                    protocol, memory, cpu, free_memory, free_cpu)
SELECT worker, host, pid, slots, busy, string_to_array(queues, ','), free_sync, free_async, version,
       protocol, memory, cpu, free_memory, free_cpu
FROM unnest($1::text[], $2::text[], $3::int[], $4::int[], $5::int[], $6::text[], $7::int[],
            $8::int[], $9::text[], $10::int[], $11::bigint[], $12::float8[], $13::bigint[],
            $14::float8[])
    AS n (worker, host, pid, slots, busy, queues, free_sync, free_async, version, protocol, memory,
          cpu, free_memory, free_cpu),
    (SELECT set_config('synchronous_commit', 'off', true)) AS liveness
ON CONFLICT (worker) DO UPDATE
SET seen_at = now(), busy = excluded.busy, slots = excluded.slots, queues = excluded.queues,
    free_sync = excluded.free_sync, free_async = excluded.free_async,
    -- A manager of before these columns may have inserted the row without them.
    version = excluded.version, protocol = excluded.protocol, memory = excluded.memory,
    cpu = excluded.cpu, free_memory = excluded.free_memory, free_cpu = excluded.free_cpu;

-- name: delete_worker
-- Delete a worker that has signed off or is dead.
DELETE FROM worker WHERE worker = $1;

-- name: read_dag_versions
-- Return DAG versions.
SELECT id, dag, spec FROM dag_version WHERE id = ANY($1::bigint[]);

-- name: find_dags
-- Return DAGs by their names.
SELECT id, dag_id, present, version FROM dag WHERE dag_id = ANY($1::text[]);

-- name: find_runs
-- Return runs by their public ids.
SELECT id, run_id, dag, state, kind, version, clear_number FROM run WHERE run_id = ANY($1::uuid[]);

-- name: annotate_run
-- Change what people put on a run: its tags to $2 unless null, with $3 and without $4; its note.
UPDATE run SET
    tags = ARRAY(
        SELECT DISTINCT each.tag
        FROM unnest(coalesce($2::text[], run.tags) || $3::text[]) AS each (tag)
        WHERE each.tag <> ALL ($4::text[]) ORDER BY each.tag),
    note = CASE WHEN $5::text IS NULL THEN note ELSE nullif($5, '') END
WHERE id = $1;

-- name: read_events_between
-- Return the events of a DAG's datasets recorded in [$2, $3), with ids below $5.
SELECT * FROM event_info
WHERE event_info.dataset IN (SELECT dataset FROM dag_subscription WHERE dag_subscription.dag = $1)
  AND event_info.recorded_at >= $2 AND ($3::timestamptz IS NULL OR event_info.recorded_at < $3)
  AND event_info.id < $5
ORDER BY event_info.id
LIMIT $4;

-- name: read_events_before
-- Return the latest events of a DAG's datasets recorded before $2, with ids below $4, in order.
SELECT * FROM (
    SELECT * FROM event_info
    WHERE event_info.dataset IN (
            SELECT dataset FROM dag_subscription WHERE dag_subscription.dag = $1
        )
      AND event_info.recorded_at < $2 AND event_info.id < $4
    ORDER BY event_info.id DESC
    LIMIT $3
) AS latest
ORDER BY id;

-- name: read_pending_of_keys
-- Return the pending events of partitions $2 of a DAG, in order.
SELECT DISTINCT pending_event.partition_key, event.event_id, event.id
FROM pending_event JOIN event ON event.id = pending_event.event
WHERE pending_event.dag = $1 AND pending_event.partition_key = ANY($2::text[])
ORDER BY event.id;

-- name: read_events_by_id
-- Return events by their public ids, in order.
SELECT * FROM event_info
WHERE event_info.event_id = ANY($1::uuid[])
ORDER BY event_info.id;

-- name: read_dead_inputs
-- Return the inputs of a DAG for which events are dead.
SELECT event, input FROM event_outcome
WHERE dag = $1 AND event = ANY($2::bigint[]) AND outcome = 'dead'
ORDER BY event, input;

-- name: delete_dead_outcomes
-- Delete the outcome `dead` of events for a DAG.
DELETE FROM event_outcome
USING unnest($1::bigint[], $2::int[]) AS n (event, dag)
WHERE event_outcome.event = n.event AND event_outcome.dag = n.dag
  AND event_outcome.outcome = 'dead';

-- name: read_dag_ids
-- Return the names of DAGs.
SELECT id, dag_id FROM dag WHERE id = ANY($1::int[]);

-- name: read_dag_revision
-- Return what a DAG's revision is made of; its dag_state is locked.
SELECT version, edits FROM dag_state WHERE dag = $1;

-- name: increment_dag_edits
-- Count a change of a DAG by a person; its dag_state is locked.
UPDATE dag_state SET edits = edits + 1 WHERE dag = $1;

-- name: lock_dead_letter
-- Lock a dead letter and return it.
SELECT id, kind, subject, dag, payload, resent_at, discarded_at FROM dead_letter WHERE id = $1
FOR UPDATE;

-- name: discard_dead_letters
-- Discard those of the dead letters $1 that are open, and return them.
WITH open AS (
    SELECT id FROM dead_letter
    WHERE id = ANY($1::bigint[]) AND resent_at IS NULL AND discarded_at IS NULL
    ORDER BY id
    FOR UPDATE
)
UPDATE dead_letter SET discarded_at = now() FROM open WHERE dead_letter.id = open.id
RETURNING dead_letter.id;

-- name: mark_dead_letter_resent
-- Record that a dead letter was resent.
UPDATE dead_letter SET resent_at = now() WHERE id = $1;

-- name: read_run_ids
-- Return the public ids and versions of runs.
SELECT id, run_id, version FROM run WHERE id = ANY($1::bigint[]);

-- name: cancel_queued_run
-- Cancel a run that never started.
UPDATE run SET state = 'cancelled', error = $2, ended_at = now()
WHERE id = $1 AND state = 'queued';

-- name: write_batch
-- Write what nearly every batch changes, each table from its own arrays of columns, in one
-- statement: a round trip costs more than a table. The parts are independent of each other, and what
-- runs is made of those that a batch fills (`store/batch_statements.py`). Return the numbers of
-- entries of the audit log; for a batch without any, the version and the time of what was written.
WITH
-- Append events to the log: n.event is the id of one, or its number among those of a batch that is
-- decided from memory, as in the parts below. Ancestries come as texts such as {1,2}, as unnest would flatten arrays
-- of arrays. JSON comes as text: it was encoded when the event was accepted.
events AS (
    INSERT INTO event (id, event_id, dataset, extra, partition, time, source, run, node, map_index,
                       ancestry, recorded_at, trace)
    SELECT n.event, event_id, dataset, extra::jsonb, partition, time, source, run, node, map_index,
           ancestry::int[], recorded_at, trace
    FROM unnest($1::bigint[], $2::uuid[], $3::int[], $4::text[], $5::text[], $6::timestamptz[],
                $7::text[], $8::bigint[], $9::int[], $10::int[], $11::text[], $12::timestamptz[],
                $13::text[])
      AS n (event, event_id, dataset, extra, partition, time, source, run, node, map_index, ancestry,
            recorded_at, trace)
),
-- Insert runs; those not queued start now, and some end at once.
runs AS (
    INSERT INTO run (id, run_id, dag, version, run_key, kind, state, params, logical_time,
                     partition, cause, error, source, started_at, ended_at)
    SELECT n.id, n.run_id, n.dag, n.version, n.run_key, n.kind, n.state, n.params::jsonb,
           n.logical_time,
           n.partition, n.cause, n.error, n.source,
           CASE WHEN n.state <> 'queued' THEN now() END,
           CASE WHEN n.state NOT IN ('queued', 'running') THEN now() END
    FROM unnest($14::bigint[], $15::uuid[], $16::int[], $17::bigint[], $18::text[], $19::text[],
                $20::text[], $21::text[], $22::timestamptz[], $23::text[], $24::text[],
                $25::text[], $26::text[])
      AS n (id, run_id, dag, version, run_key, kind, state, params, logical_time, partition, cause,
            error, source)
),
-- Record the events that runs consumed.
consumed AS (
    INSERT INTO run_event (run, event, input)
    SELECT n.run, n.event, n.input
    FROM unnest($27::bigint[], $28::bigint[], $29::smallint[]) AS n (run, event, input)
    ON CONFLICT DO NOTHING
),
-- Delete the live rows of finished tasks.
removed AS (
    DELETE FROM task_live
    USING unnest($30::bigint[], $31::int[], $32::int[]) AS n (run, node, map_index)
    WHERE task_live.run = n.run AND task_live.node = n.node AND task_live.map_index = n.map_index
    -- remembered: AND task_live.xmin = ANY(@8::xid[]) RETURNING task_live.run
),
-- Insert finished tasks.
ended AS (
    INSERT INTO task (run, node, map_index, attempt, state, worker, queued_at, started_at, ended_at,
                      length, result, outputs, error, peak_memory)
    -- A task that has waited was queued again after its first start, from which it counts.
    SELECT n.run, n.node, n.map_index, n.attempt, n.state, n.worker,
           least(n.queued_at, n.started_at), n.started_at, coalesce(n.ended_at, now()), n.length,
           n.result, n.outputs, n.error, n.peak_memory
    FROM unnest($33::bigint[], $34::int[], $35::int[], $36::int[], $37::text[], $38::text[],
                $39::timestamptz[], $40::timestamptz[], $41::timestamptz[], $42::int[],
                $43::bytea[], $44::bytea[], $45::jsonb[], $46::bigint[])
      AS n (run, node, map_index, attempt, state, worker, queued_at, started_at, ended_at, length,
            result, outputs, error, peak_memory)
),
-- Insert live tasks: queued ones, deferred ones, and those that a runner chained.
live AS (
    INSERT INTO task_live (run, node, map_index, attempt, delivery, state, chained, worker,
                           started_at, wait_set, direct)
    SELECT * FROM unnest($47::bigint[], $48::int[], $49::int[], $50::int[], $51::bigint[],
                         $52::text[], $53::boolean[], $54::text[], $55::timestamptz[],
                         $56::bytea[], $57::boolean[])
),
-- Insert the progress of started runs.
opened AS (
    INSERT INTO run_live (run, dag, version, progress, info, source)
    SELECT * FROM unnest($58::bigint[], $59::int[], $60::bigint[], $61::bytea[], $62::bytea[],
                         $63::text[])
),
-- Update the progress of runs.
progressed AS (
    UPDATE run_live SET progress = new.progress
    FROM unnest($64::bigint[], $65::bytea[]) AS new (run, progress)
    WHERE run_live.run = new.run
),
-- Of the progress of large runs: the chunks that have changed.
chunked AS (
    INSERT INTO progress_chunk (run, number, progress)
    SELECT * FROM unnest($90::bigint[], $91::int[], $92::bytea[])
    ON CONFLICT (run, number) DO UPDATE SET progress = excluded.progress
),
-- Claim idempotency keys; other batches have claimed theirs before they were decided.
claimed AS (
    INSERT INTO idempotency_key (key, event_id)
    SELECT key, event_id FROM unnest($93::text[], $94::uuid[]) AS n (key, event_id) ORDER BY key
    ON CONFLICT (key) DO NOTHING
    -- remembered: RETURNING key
),
-- Finish runs of earlier batches.
gone AS (
    DELETE FROM run_live WHERE run = ANY($66::bigint[])
),
closed AS (
    UPDATE run SET state = n.state, error = n.error, ended_at = now()
    FROM unnest($66::bigint[], $67::text[], $68::text[]) AS n (run, state, error)
    WHERE run.id = n.run AND run.state IN ('queued', 'running')
),
-- Insert pending events of inputs that have not consumed them.
kept AS (
    INSERT INTO pending_event (dag, partition_key, input, event)
    SELECT n.dag, n.partition_key, n.input, n.event
    FROM unnest($69::int[], $70::text[], $71::smallint[], $72::bigint[])
      AS n (dag, partition_key, input, event)
),
states AS (
    INSERT INTO condition_state (dag, partition_key, state, open)
    SELECT * FROM unnest($73::int[], $74::text[], $75::bytea[], $76::boolean[])
    ON CONFLICT (dag, partition_key)
    DO UPDATE SET state = excluded.state, open = excluded.open, changed_at = now()
    -- remembered: WHERE condition_state.xmin = (@10::xid[])[array_position(@9::int[], excluded.dag)]
    -- remembered: RETURNING dag
),
-- Append to the change log.
logged AS (
    INSERT INTO change (body) SELECT * FROM unnest($82::bytea[])
),
counted AS (
    UPDATE dag_state SET
        paused = new.paused, active = new.active, queued = new.queued,
        catch_up_from = new.catch_up_from
    FROM unnest($77::int[], $78::boolean[], $79::int[], $80::int[], $81::bigint[])
      AS new (dag, paused, active, queued, catch_up_from)
    WHERE dag_state.dag = new.dag
),
-- Append to the audit log what the requests were that are carried out here.
audited AS (
    INSERT INTO audit (principal, token, remote, action, object, status, times)
    SELECT * FROM unnest($83::text[], $84::uuid[], $85::text[], $86::text[], $87::text[],
                         $88::int[], $89::int[])
    RETURNING id
)
SELECT id, pg_current_xact_id()::xid AS written, now() AS written_at FROM audited ORDER BY id;

-- name: write_remembered
-- Write a batch that was decided by remembered rows, if they are as they were: the run $1 of version
-- $2, the DAG states $3 of versions $4, the DAGs $6 that subscribe to the datasets $5, and what the
-- parts of write_batch compare, live tasks of versions $8 and states of conditions of the DAGs $9 of
-- versions $10, and $11 idempotency keys that are free. Allocate $7 event ids and return them, with the version and the time of what was
-- written. A row's version is the transaction that wrote it (xmin).
-- What another transaction has locked counts as changed: nothing is waited for. What was committed
-- since the statement began is seen where rows are locked, updated and deleted, and tables that are
-- only read are locked by those who change them. Any difference is an error, so nothing is written.
-- Parts of write_batch stand in place of the empty expressions, and further ones after them.
WITH
claimed AS (
    SELECT WHERE false
),
locked_run AS (
    SELECT run FROM run_live WHERE run = $1::bigint AND xmin = $2::xid FOR UPDATE SKIP LOCKED
),
locked_dags AS (
    SELECT dag FROM dag_state
    WHERE dag = ANY($3::int[]) AND xmin = ($4::xid[])[array_position($3::int[], dag)]
    ORDER BY dag
    FOR UPDATE SKIP LOCKED
),
numbered AS (
    SELECT CASE
        -- First: another transaction that claims the same key is waited for, without a lock.
        WHEN (SELECT count(*) FROM claimed) = $11::int
            AND (SELECT count(*) FROM locked_run) = ($1::bigint IS NOT NULL)::int
            AND (SELECT count(*) FROM locked_dags) = cardinality($3::int[])
            AND $6::int[] = ARRAY(
                SELECT subscribed.dag
                FROM unnest($5::int[]) WITH ORDINALITY AS requested (dataset, number)
                CROSS JOIN LATERAL (
                    SELECT d.dag FROM dag_subscription AS d WHERE d.dataset = requested.dataset
                    ORDER BY d.dag OFFSET 0
                ) AS subscribed
                ORDER BY requested.number, subscribed.dag)
            AND NOT EXISTS (SELECT FROM event_wait WHERE dataset = ANY($5::int[]) OR dataset IS NULL)
            AND NOT EXISTS (
                SELECT FROM pool WHERE starts_with(name, 'tag:') OR starts_with(name, 'runs:tag:'))
        THEN ARRAY(SELECT nextval('event_id') FROM generate_series(1, $7::int))
    END AS ids
),
removed AS (
    SELECT WHERE false
),
states AS (
    SELECT WHERE false
)
SELECT ids, pg_current_xact_id()::xid AS written, now() AS written_at
FROM numbered
WHERE CASE
    WHEN ids IS NOT NULL
        AND (SELECT count(*) FROM removed) = cardinality($8::xid[])
        AND (SELECT count(*) FROM states) = cardinality($9::int[])
        AND cardinality($9::int[]) = cardinality($10::xid[])
    THEN true
    -- To read this text as a number is the error that ends the statement.
    ELSE ('remembered rows have changed, the batch is decided anew'
          || cardinality($3::int[]))::int IS NULL
END;
