-- Retention: slices are begun and removed as a whole; what is small is removed row by row.

-- name: try_lock_retention
-- Lock retention for this session, unless another daemon is at it; return whether.
SELECT pg_try_advisory_lock(7233004);

-- name: unlock_retention
-- Unlock retention.
SELECT pg_advisory_unlock(7233004);

-- name: read_store_clock
-- Return the time of the database, in seconds.
SELECT extract(epoch FROM clock_timestamp())::float8;

-- name: limit_lock_waits
-- Limit waits for a lock to $1 milliseconds until the transaction ends: what is behind it in the
-- queue of the lock waits as long.
SELECT set_config('lock_timeout', $1, true);

-- name: list_slices
-- Return the slices of series $1, oldest first, with the ids given out in each, and the seconds
-- since it began and since it ended, which is null for the one in use.
SELECT number, results_removed, last_id - (number::bigint << 32) AS ids,
       extract(epoch FROM now() - started_at)::float8 AS age_seconds,
       extract(epoch FROM now() - lead(started_at) OVER in_order)::float8 AS ended_seconds
FROM slice WHERE series = $1
WINDOW in_order AS (ORDER BY number)
ORDER BY number;

-- name: open_slice
-- Make the partitions of the next slice of series $1 and return its number.
SELECT open_slice($1);

-- name: analyze_series
-- Collect the statistics of the tables of series $1.
SELECT analyze_series($1);

-- name: read_last_slice_id
-- Return the last id given out by the sequence $1, 0 for none.
SELECT coalesce(pg_sequence_last_value($1::text::regclass), 0);

-- name: begin_slice
-- Advance the sequence $1 to slice $3 of series $2, whose partitions exist; $4 is the last id of the
-- slice before. Ids allocated meanwhile are lower, never the same. A sequence that has advanced
-- already, though its transaction failed, must not go back.
WITH jumped AS (
    SELECT CASE WHEN coalesce(pg_sequence_last_value($1::text::regclass), 0) < $3::int::bigint << 32
                THEN setval($1::text::regclass, $3::int::bigint << 32) END
), ended AS (
    UPDATE slice SET last_id = $4 WHERE series = $2 AND number < $3 AND last_id IS NULL
)
UPDATE slice SET started_at = clock_timestamp() FROM jumped WHERE series = $2 AND number = $3;

-- name: list_leftovers
-- Return the partitions whose slice is removed, with their parent, null when it is detached, and
-- whether the detachment was interrupted: those first, as a table has one of these at most.
SELECT part.relname AS part, parent.relname AS parent, coalesce(inhdetachpending, false) AS pending
FROM pg_class AS part
LEFT JOIN pg_inherits ON inhrelid = part.oid
LEFT JOIN pg_class AS parent ON parent.oid = inhparent
WHERE part.relnamespace = current_schema()::regnamespace AND part.relkind = 'r'
  AND part.relname ~ ('^(' || array_to_string(sliced_tables($1), '|') || ')_s[0-9]+$')
  AND NOT EXISTS (
      SELECT FROM slice
      WHERE series = $1 AND number = substring(part.relname FROM '[0-9]+$')::int
  )
ORDER BY pending DESC, part.relname;

-- name: write_detachment
-- Return the statements that detach partition $2 of table $1 and drop it; $3 for a detachment that
-- was interrupted. One at a time, outside of a transaction: writers go on meanwhile.
SELECT CASE WHEN $1::text IS NULL THEN NULL
            ELSE format('ALTER TABLE %I DETACH PARTITION %I %s', $1::text, $2::text,
                        CASE WHEN $3 THEN 'FINALIZE' ELSE 'CONCURRENTLY' END)
       END AS detach,
       format('DROP TABLE %I', $2::text) AS drop;

-- name: read_partitions
-- Return the partitions of slice $2 of the tables $1, with their bytes and rows, about.
SELECT parent, coalesce(pg_total_relation_size(part.oid), 0) AS bytes,
       pg_relation_size(part.oid) > 0 AS used, greatest(reltuples, 0)::bigint AS rows
FROM unnest($1::text[]) AS parent
JOIN pg_class AS part ON part.oid = to_regclass(format('%I', parent || '_s' || $2::int));

-- name: write_count
-- Return the statement that counts the rows of partition $1.
SELECT format('SELECT count(*) FROM %I', $1::text);

-- name: lock_slice
-- Lock the partitions of slice $1 of tables against readers and writers.
SELECT lock_slice($1, $2);

-- name: trim_slice
-- Remove the rows of slice $1 from tables, except for those of the events or runs $3; the slice is
-- locked.
SELECT trim_slice($1, $2, $3);

-- name: delete_slice
-- Forget a slice whose partitions are empty; these are leftovers from then on.
DELETE FROM slice WHERE series = $1 AND number = $2;

-- name: list_kept_events
-- Return the events in [$1, $2) that something waits for, $5 a reason at most: those that are
-- pending, to be delivered, consumed by a run that has not ended ($3: runs that collect), named in
-- an open dead letter ($4), or still to be processed by a DAG, a subscriber or a wait.
(SELECT event FROM pending_event WHERE event >= $1 AND event < $2 LIMIT $5)
UNION
(SELECT event FROM event_delivery WHERE event >= $1 AND event < $2 LIMIT $5)
UNION
(SELECT run_event.event
 FROM (
     SELECT run FROM run_live UNION SELECT run FROM run_queue UNION SELECT unnest($3::bigint[])
 ) AS unfinished
 JOIN run_event USING (run)
 WHERE run_event.event >= $1 AND run_event.event < $2 LIMIT $5)
UNION
(SELECT id FROM event WHERE event_id = ANY($4::uuid[]) AND id >= $1 AND id < $2)
UNION
(SELECT event.id
 FROM dag_state AS s
 JOIN dag_subscription AS d ON d.dag = s.dag
 JOIN event ON event.dataset = d.dataset
 WHERE event.id >= s.catch_up_from AND event.id >= $1 AND event.id < $2 LIMIT $5)
UNION
(SELECT event.id
 FROM event_subscription AS s
 JOIN event ON event.id > s.cursor
 WHERE s.state IN ('active', 'paused') AND event.id >= $1 AND event.id < $2
   AND (s.expression IS NULL
        OR (SELECT uri FROM dataset WHERE dataset.id = event.dataset) ~ s.expression)
 LIMIT $5)
UNION
(SELECT event.id
 FROM event_wait AS w
 JOIN dataset ON w.dataset = dataset.id OR w.dataset IS NULL AND dataset.uri ~ w.expression
 JOIN event ON event.dataset = dataset.id
 WHERE w.due AND event.id > w.checked_until AND event.id >= $1 AND event.id < $2 LIMIT $5);

-- name: list_collecting_states
-- Return the condition states in which a run may collect events.
SELECT state FROM condition_state WHERE open;

-- name: list_open_letters
-- Return the dead letters that name events and are open.
SELECT payload FROM dead_letter
WHERE resent_at IS NULL AND discarded_at IS NULL AND kind IN ('params', 'loop', 'delivery');

-- name: list_schedule_versions
-- Return the DAGs with their versions in force.
SELECT dag, version FROM dag_state ORDER BY dag;

-- name: list_kept_runs
-- Return the runs in [$1, $2) that have not ended, or not $3 seconds ago; of the DAGs $4 not $5
-- seconds ago; $6 at most.
SELECT run.id
FROM run LEFT JOIN unnest($4::int[], $5::float8[]) AS own (dag, seconds) ON own.dag = run.dag
WHERE run.id >= $1 AND run.id < $2
  AND (run.ended_at IS NULL
       OR run.ended_at > now() - make_interval(secs => coalesce(own.seconds, $3)))
ORDER BY run.id
LIMIT $6;

-- name: list_due_runs
-- Return the runs in ($1, $2) that ended $3 seconds ago; of the DAGs $4 $5 seconds ago; the first $6.
SELECT run.id
FROM run LEFT JOIN unnest($4::int[], $5::float8[]) AS own (dag, seconds) ON own.dag = run.dag
WHERE run.id > $1 AND run.id < $2
  AND run.ended_at <= now() - make_interval(secs => coalesce(own.seconds, $3))
ORDER BY run.id
LIMIT $6;

-- name: list_due_runs_of_dag
-- Return finished runs of DAG $1 among its oldest 10,000: those that ended $2 seconds ago, or that
-- are older than the newest $3 runs, 0 for any number; $4 at most.
SELECT id FROM (
    SELECT id, run_id, ended_at FROM run WHERE dag = $1 ORDER BY run_id LIMIT 10000
) AS oldest
WHERE ended_at IS NOT NULL
  AND (ended_at <= now() - make_interval(secs => $2)
       OR $3 > 0 AND run_id <= (
           SELECT run_id FROM run WHERE dag = $1 ORDER BY run_id DESC OFFSET $3 LIMIT 1
       ))
ORDER BY run_id
LIMIT $4;

-- name: count_runs
-- Count the runs in [$1, $2).
SELECT count(*) FROM run WHERE id >= $1 AND id < $2;

-- name: list_runs_between
-- Return the runs in [$1, $2), $3 at most.
SELECT id FROM run WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3;

-- name: delete_runs
-- Delete finished runs, with what their tasks keep; one that is locked is about to start again.
WITH gone AS (
    DELETE FROM run WHERE id IN (
        SELECT id FROM run WHERE id = ANY($1::bigint[]) AND ended_at IS NOT NULL
        ORDER BY id FOR UPDATE SKIP LOCKED
    )
    RETURNING id
), kept AS (
    DELETE FROM task_value USING gone WHERE task_value.run = gone.id
)
SELECT id FROM gone;

-- name: delete_rows_of_runs
-- Delete what the tables of runs hold of runs that are deleted.
WITH logs AS (DELETE FROM log WHERE run = ANY($1::bigint[])),
files AS (DELETE FROM log_object WHERE run = ANY($1::bigint[])),
attempts AS (DELETE FROM attempt WHERE run = ANY($1::bigint[])),
journals AS (DELETE FROM journal_entry WHERE run = ANY($1::bigint[])),
tasks AS (DELETE FROM task WHERE run = ANY($1::bigint[]))
DELETE FROM run_event WHERE run = ANY($1::bigint[]);

-- name: remove_results
-- Put $2 in the place of the results of runs, without their outputs, and return how many there
-- were, and their bytes.
WITH old AS (
    SELECT run, node, map_index,
           coalesce(octet_length(result), 0) + coalesce(octet_length(outputs), 0) AS bytes
    FROM task
    WHERE run = ANY($1::bigint[]) AND (result <> $2 OR outputs IS NOT NULL)
), gone AS (
    UPDATE task SET result = $2, outputs = NULL FROM old
    WHERE task.run = old.run AND task.node = old.node AND task.map_index = old.map_index
      AND task.run = ANY($1::bigint[])
)
SELECT count(*) AS rows, coalesce(sum(bytes), 0)::bigint AS bytes FROM old;

-- name: read_database_id
-- Return the id of this database, which it gets at the first call.
WITH made AS (
    INSERT INTO connection_vault DEFAULT VALUES ON CONFLICT DO NOTHING RETURNING id
)
SELECT id FROM made UNION ALL SELECT id FROM connection_vault LIMIT 1;

-- name: list_stored_results
-- Return the runs $1 that exist, with whether they have not ended, with their results that may be
-- references to the result store (extension types of MessagePack), and what they have pushed that
-- may hold some.
SELECT run.id AS run, run.ended_at IS NULL AS unfinished, task.result, task.outputs
FROM run
LEFT JOIN task ON task.run = run.id AND (
    octet_length(task.result) BETWEEN 10 AND 200
        AND substring(task.result FOR 1) IN ('\xc7', '\xd8')
    OR position('psfresult'::bytea IN task.outputs) > 0
)
WHERE run.id = ANY($1::bigint[]);

-- name: mark_results_removed
-- Record that the results of a slice are removed.
UPDATE slice SET results_removed = true WHERE series = 'run' AND number = $1;

-- name: delete_idempotency_keys
-- Delete idempotency keys of $1 seconds ago, the oldest $2, and return how many and their bytes.
WITH gone AS (
    DELETE FROM idempotency_key AS k WHERE key = ANY(ARRAY(
        SELECT key FROM idempotency_key
        WHERE created_at < now() - make_interval(secs => $1)
        ORDER BY created_at LIMIT $2
    ))
    RETURNING pg_column_size(k.*) AS bytes
)
SELECT count(*) AS rows, coalesce(sum(bytes), 0)::bigint AS bytes FROM gone;

-- name: count_idempotency_keys
-- Count the idempotency keys of $1 seconds ago, with their bytes.
SELECT count(*) AS rows, coalesce(sum(pg_column_size(k.*)), 0)::bigint AS bytes
FROM idempotency_key AS k WHERE created_at < now() - make_interval(secs => $1);

-- name: delete_condition_states
-- Delete the states of $2 partitions that have had nothing pending and have not changed for $1
-- seconds, and of which no run is kept; return how many and their bytes. A manager that has read one
-- of them writes it again.
WITH gone AS (
    DELETE FROM condition_state AS c
    WHERE (dag, partition_key) IN (
        SELECT dag, partition_key FROM condition_state AS due
        WHERE NOT open AND partition_key <> '' AND changed_at < now() - make_interval(secs => $1)
          AND NOT EXISTS (
              SELECT FROM run WHERE run.dag = due.dag AND run.partition = due.partition_key
          )
        LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    RETURNING pg_column_size(c.*) AS bytes
)
SELECT count(*) AS rows, coalesce(sum(bytes), 0)::bigint AS bytes FROM gone;

-- name: count_condition_states
-- Count the partitions that have had nothing pending and have not changed for $1 seconds, and of
-- which no run is kept, with their bytes.
SELECT count(*) AS rows, coalesce(sum(pg_column_size(due.*)), 0)::bigint AS bytes
FROM condition_state AS due
WHERE NOT open AND partition_key <> '' AND changed_at < now() - make_interval(secs => $1)
  AND NOT EXISTS (SELECT FROM run WHERE run.dag = due.dag AND run.partition = due.partition_key);

-- name: list_due_letters
-- Return dead letters that were resent or discarded $1 seconds ago, and all but the newest $2, with
-- their bytes.
SELECT id, octet_length(payload) AS bytes FROM dead_letter
WHERE coalesce(resent_at, discarded_at) < now() - make_interval(secs => $1)
   OR $2 > 0 AND id <= (SELECT id FROM dead_letter ORDER BY id DESC OFFSET $2 LIMIT 1)
ORDER BY id
LIMIT $3;

-- name: delete_letters
-- Delete dead letters, except those that are being resent.
DELETE FROM dead_letter WHERE id IN (
    SELECT id FROM dead_letter WHERE id = ANY($1::bigint[]) ORDER BY id FOR UPDATE SKIP LOCKED
);

-- name: list_due_versions
-- Return versions that are $1 seconds old, not in force nor to be followed, not among the newest $2 of
-- their DAG, and that no run has, with their bytes; $3 at most.
SELECT v.id, octet_length(v.spec) AS bytes
FROM dag_version AS v
JOIN dag ON dag.id = v.dag
LEFT JOIN dag_state ON dag_state.dag = v.dag
WHERE v.created_at < now() - make_interval(secs => $1)
  AND v.id <> dag.version AND v.id IS DISTINCT FROM dag_state.version
  AND v.id IS DISTINCT FROM dag_state.canary
  AND NOT EXISTS (SELECT FROM dag_pin WHERE v.id IN (dag_pin.version, dag_pin.newest))
  AND v.number <= (SELECT max(number) FROM dag_version AS newer WHERE newer.dag = v.dag) - $2
  AND NOT EXISTS (SELECT FROM run WHERE run.dag = v.dag AND run.version = v.id)
ORDER BY v.id
LIMIT $3;

-- name: delete_versions
-- Delete versions.
DELETE FROM dag_version WHERE id = ANY($1::bigint[]);

-- name: allow_pauses
-- Allow this transaction to be idle between its statements.
SELECT set_config('idle_in_transaction_session_timeout', '10min', true);

-- name: try_lock_source_files
-- Lock the files of bundles until the transaction ends, unless a loader writes some; return whether.
SELECT pg_try_advisory_xact_lock(7233005);

-- name: list_bundles_without_version
-- Return the bundles that were written $1 seconds ago and that no version in force, no version of
-- late, and no callback of a dataset is from.
SELECT hash FROM bundle AS b
WHERE created_at < now() - make_interval(secs => $1)
  AND NOT EXISTS (SELECT FROM dag_version WHERE dag_version.bundle = b.hash)
  AND NOT EXISTS (
      SELECT FROM dag_state
      WHERE b.hash IN (split_part(source, '-', 1), split_part(canary_source, '-', 1))
  )
  AND NOT EXISTS (SELECT FROM freshness_file WHERE freshness_file.bundle = b.hash)
  AND NOT EXISTS (
      SELECT FROM callback WHERE callback.bundle = b.hash AND callback.ended_at IS NULL
  );

-- name: list_bundles_of_runs
-- Return the bundles that runs are pinned to.
SELECT DISTINCT split_part(source, '-', 1) AS hash FROM run;

-- name: delete_bundles
-- Delete bundles and return their bytes.
DELETE FROM bundle WHERE hash = ANY($1::text[]) RETURNING octet_length(manifest) AS bytes;

-- name: list_manifests
-- Return the manifests of all bundles.
SELECT manifest FROM bundle;

-- name: list_source_files
-- Return the hashes of all files of bundles.
SELECT hash FROM source_file;

-- name: delete_source_files
-- Delete files and return their bytes.
DELETE FROM source_file WHERE hash = ANY($1::text[]) RETURNING octet_length(data) AS bytes;

-- name: list_columns
-- Return the columns of table $1 with their types, in order.
SELECT attname AS name, format_type(atttypid, NULL) AS type FROM pg_attribute
WHERE attrelid = to_regclass($1::text) AND attnum > 0 AND NOT attisdropped
ORDER BY attnum;

-- name: archive_event
-- Return events in [$1, $2) as JSON, except $3.
SELECT (to_jsonb(e) || jsonb_build_object('dataset', dataset.uri))::text AS row
FROM event AS e JOIN dataset ON dataset.id = e.dataset
WHERE e.id >= $1 AND e.id < $2 AND NOT e.id = ANY($3::bigint[]);

-- name: archive_event_outcome
-- Return outcomes of events in [$1, $2) as JSON, except $3.
SELECT (to_jsonb(o) || jsonb_build_object('dag', dag.dag_id))::text AS row
FROM event_outcome AS o JOIN dag ON dag.id = o.dag
WHERE o.event >= $1 AND o.event < $2 AND NOT o.event = ANY($3::bigint[]);

-- name: archive_run
-- Return the runs among $1 as JSON.
SELECT (to_jsonb(r) || jsonb_build_object('dag', dag.dag_id))::text AS row
FROM run AS r JOIN dag ON dag.id = r.dag
WHERE r.id = ANY($1::bigint[]);

-- name: archive_log
-- Return output of runs in [$1, $2) as JSON, except $3.
SELECT to_jsonb(t)::text AS row FROM log AS t
WHERE run >= $1 AND run < $2 AND NOT run = ANY($3::bigint[]);

-- name: archive_log_object
-- Return files of the log store of runs in [$1, $2) as JSON, except $3.
SELECT to_jsonb(t)::text AS row FROM log_object AS t
WHERE run >= $1 AND run < $2 AND NOT run = ANY($3::bigint[]);

-- name: archive_attempt
-- Return attempts of runs in [$1, $2) as JSON, except $3.
SELECT to_jsonb(t)::text AS row FROM attempt AS t
WHERE run >= $1 AND run < $2 AND NOT run = ANY($3::bigint[]);

-- name: archive_journal_entry
-- Return journal entries of runs in [$1, $2) as JSON, except $3.
SELECT to_jsonb(t)::text AS row FROM journal_entry AS t
WHERE run >= $1 AND run < $2 AND NOT run = ANY($3::bigint[]);

-- name: archive_task
-- Return finished tasks of runs in [$1, $2) as JSON, except $3.
SELECT to_jsonb(t)::text AS row FROM task AS t
WHERE run >= $1 AND run < $2 AND NOT run = ANY($3::bigint[]);

-- name: archive_run_event
-- Return which events runs in [$1, $2) consumed as JSON, except $3.
SELECT to_jsonb(t)::text AS row FROM run_event AS t
WHERE run >= $1 AND run < $2 AND NOT run = ANY($3::bigint[]);

-- name: delete_check_results
-- Delete up to $2 results of checks of $1 seconds ago, but for those that wait or hold an event, and
-- return how many and their bytes.
WITH gone AS (
    DELETE FROM check_result AS r WHERE id = ANY(ARRAY(
        SELECT id FROM check_result
        WHERE created_at < now() - make_interval(secs => $1) AND NOT holding
          AND outcome <> 'waiting'
        ORDER BY created_at LIMIT $2
    ))
    RETURNING pg_column_size(r.*) AS bytes
)
SELECT count(*) AS rows, coalesce(sum(bytes), 0)::bigint AS bytes FROM gone;

-- name: count_check_results
-- Count the results of checks of $1 seconds ago, but for those that wait or hold an event, with
-- their bytes.
SELECT count(*) AS rows, coalesce(sum(pg_column_size(r.*)), 0)::bigint AS bytes
FROM check_result AS r
WHERE created_at < now() - make_interval(secs => $1) AND NOT holding AND outcome <> 'waiting';

-- name: delete_discarded_events
-- Delete up to $2 events that were discarded $1 seconds ago, and return how many and their bytes.
WITH gone AS (
    DELETE FROM held_event AS h WHERE id = ANY(ARRAY(
        SELECT id FROM held_event WHERE discarded_at < now() - make_interval(secs => $1)
        ORDER BY discarded_at LIMIT $2
    ))
    RETURNING pg_column_size(h.*) AS bytes
)
SELECT count(*) AS rows, coalesce(sum(bytes), 0)::bigint AS bytes FROM gone;

-- name: count_discarded_events
-- Count the events that were discarded $1 seconds ago, with their bytes.
SELECT count(*) AS rows, coalesce(sum(pg_column_size(h.*)), 0)::bigint AS bytes
FROM held_event AS h WHERE discarded_at < now() - make_interval(secs => $1);
