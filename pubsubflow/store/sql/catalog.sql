-- What the loader writes: DAG files, sources, datasets, DAGs, versions, subscriptions, schedule
-- states.

-- name: lock_catalog
-- Serialize loaders: one writes at a time.
SELECT pg_advisory_xact_lock(7233002);

-- name: list_imported_files
-- Return the files that are stored.
SELECT file, source FROM dag_file;

-- name: list_stored_imports
-- Return the records of imports that count for what is stored, with the DAGs that are stored of each
-- file, and the bundles that these are in. Every join has an index: before new tables are analyzed the
-- planner expects few rows of two joined ones, and would read a result without an index for each.
WITH found AS MATERIALIZED (
    SELECT f.file, f.read_at,
           array_agg(dag.dag_id) FILTER (WHERE dag.id IS NOT NULL) AS dag_ids,
           array_agg(DISTINCT split_part(s.source, '-', 1)) FILTER (WHERE dag.id IS NOT NULL)
               AS bundles
    FROM dag_file AS f
    LEFT JOIN (dag JOIN dag_state AS s ON s.dag = dag.id AND s.missing_since IS NULL)
           ON dag.file = f.file AND dag.present
    WHERE f.error IS NULL
    GROUP BY f.file
)
SELECT found.file, dag_import.record,
       coalesce(found.dag_ids, '{}') AS dag_ids, coalesce(found.bundles, '{}') AS bundles
FROM found
JOIN dag_import ON dag_import.file = found.file AND dag_import.read_at = found.read_at;

-- name: save_import_records
-- Insert or update the records of imports of files that this transaction has written.
INSERT INTO dag_import (file, read_at, record)
SELECT file, dag_file.read_at, n.record
FROM unnest($1::text[], $2::bytea[]) AS n (file, record) JOIN dag_file USING (file)
ON CONFLICT (file) DO UPDATE SET read_at = excluded.read_at, record = excluded.record;

-- name: find_missing_source_files
-- Return those of the hashes $1 that no file is stored under.
SELECT n.hash FROM unnest($1::text[]) AS n (hash)
WHERE NOT EXISTS (SELECT FROM source_file WHERE source_file.hash = n.hash);

-- name: save_source_files
-- Insert files by their hash.
INSERT INTO source_file (hash, data)
SELECT hash, data FROM unnest($1::text[], $2::bytea[]) AS n (hash, data) ORDER BY hash
ON CONFLICT (hash) DO NOTHING;

-- name: lock_source_files
-- Keep retention from removing files, until the session unlocks them or ends.
SELECT pg_advisory_lock_shared(7233005);

-- name: unlock_source_files
-- Allow retention to remove files again.
SELECT pg_advisory_unlock_shared(7233005);

-- name: save_bundle
-- Insert a bundle whose files are stored; one that exists has a new age, for retention.
INSERT INTO bundle (hash, manifest) VALUES ($1, $2)
ON CONFLICT (hash) DO UPDATE SET created_at = now();

-- name: has_bundle
-- Return whether a bundle is stored.
SELECT EXISTS (SELECT FROM bundle WHERE hash = $1);

-- name: read_bundle
-- Return the manifest of a bundle.
SELECT manifest FROM bundle WHERE hash = $1;

-- name: read_source_file
-- Return a part of a file, from byte $2 (counted from 0) on, $3 bytes at most, and its size.
SELECT substring(data FROM $2::int + 1 FOR $3::int) AS part, length(data) AS size
FROM source_file WHERE hash = $1;

-- name: read_version_hash
-- Return the spec of a version and its hash.
SELECT spec, hash FROM dag_version WHERE id = $1;

-- name: save_files
-- Insert or update DAG files.
INSERT INTO dag_file (file, source, error, traceback, import_seconds)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::float8[])
ON CONFLICT (file) DO UPDATE SET
    source = excluded.source, error = excluded.error, traceback = excluded.traceback,
    import_seconds = excluded.import_seconds, read_at = now();

-- name: read_file_errors
-- Return the import errors of the files $1 that have one.
SELECT file, error FROM dag_file WHERE file = ANY($1::text[]) AND error IS NOT NULL;

-- name: delete_files
-- Delete DAG files.
DELETE FROM dag_file WHERE file = ANY($1::text[]);

-- name: save_datasets
-- Insert or update the datasets that files declare.
INSERT INTO dataset (uri, name, group_name, extra)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::jsonb[])
ON CONFLICT (uri) DO UPDATE SET
    name = excluded.name, group_name = excluded.group_name, extra = excluded.extra
WHERE (dataset.name, dataset.group_name, dataset.extra)
      IS DISTINCT FROM (excluded.name, excluded.group_name, excluded.extra);

-- name: save_dags
-- Insert DAGs or mark them present; return the ids of all.
WITH requested AS (
    SELECT * FROM unnest($1::text[], $2::text[]) AS n (dag_id, file)
)
INSERT INTO dag (dag_id, file) SELECT dag_id, file FROM requested ORDER BY dag_id
ON CONFLICT (dag_id) DO UPDATE SET
    file = excluded.file, present = true,
    returned_at = CASE WHEN dag.present THEN dag.returned_at ELSE now() END
RETURNING id, dag_id;

-- name: save_versions
-- Insert versions where the spec is new and put them in force; return those that changed: dag,
-- version and its number.
WITH requested AS (
    SELECT * FROM unnest($1::int[], $2::text[], $3::bytea[]) AS n (dag, hash, spec)
), made AS (
    INSERT INTO dag_version (dag, number, hash, spec)
    SELECT requested.dag,
           1 + coalesce((SELECT max(number) FROM dag_version AS v WHERE v.dag = requested.dag), 0),
           requested.hash, requested.spec
    FROM requested
    WHERE NOT EXISTS (
        SELECT FROM dag_version AS v WHERE v.dag = requested.dag AND v.hash = requested.hash
    )
    RETURNING id, dag, number
), wanted AS (
    SELECT id, dag, number FROM made
    UNION ALL
    SELECT v.id, v.dag, v.number FROM dag_version AS v JOIN requested USING (dag, hash)
)
UPDATE dag SET version = wanted.id
FROM wanted
LEFT JOIN dag_state ON dag_state.dag = wanted.dag
WHERE dag.id = wanted.dag
  AND (dag.version <> wanted.id OR dag_state.version IS DISTINCT FROM wanted.id)
RETURNING wanted.dag, wanted.id AS version, wanted.number;

-- name: lock_changed_dags
-- Lock the states of changed DAGs, in order, and return the specs in force so far.
SELECT dag_state.dag, dag_version.spec
FROM dag_state JOIN dag_version ON dag_version.id = dag_state.version
WHERE dag_state.dag = ANY($1::int[])
ORDER BY dag_state.dag
FOR UPDATE OF dag_state;

-- name: save_dag_states
-- Put versions in force for scheduling; a new DAG starts caught up, except for the past events that
-- it subscribes to.
INSERT INTO dag_state (dag, version, catch_up_from)
SELECT dag, version,
       CASE
           WHEN since = 'now' THEN NULL
           WHEN since = 'earliest' THEN 0
           WHEN since ~ '^[0-9a-f]{8}-[0-9a-f]{4}-' THEN
               (SELECT id FROM event WHERE event_id = since::uuid)
           ELSE (SELECT min(id) FROM event WHERE recorded_at >= since::timestamptz)
       END
FROM unnest($1::int[], $2::bigint[], $3::text[]) AS n (dag, version, since)
ON CONFLICT (dag) DO UPDATE SET version = excluded.version;

-- name: schedule_catch_up
-- Set a timer at which new subscriptions process past events.
INSERT INTO timer (due_at, kind, dag)
SELECT now(), 'subscribe', dag FROM dag_state
WHERE dag = ANY($1::int[]) AND catch_up_from IS NOT NULL AND NOT paused;

-- name: delete_subscriptions
-- Delete the subscriptions of DAGs.
WITH gone AS (DELETE FROM pattern_subscription WHERE dag = ANY($1::int[]))
DELETE FROM dag_subscription WHERE dag = ANY($1::int[]);

-- name: subscribe_dags
-- Subscribe DAGs to datasets.
INSERT INTO dag_subscription (dataset, dag)
SELECT DISTINCT dataset.id, n.dag
FROM unnest($1::int[], $2::text[]) AS n (dag, uri) JOIN dataset USING (uri)
ON CONFLICT DO NOTHING;

-- name: lock_datasets
-- Wait for transactions that add datasets without seeing a new pattern, and block later ones.
LOCK TABLE dataset IN SHARE ROW EXCLUSIVE MODE;

-- name: subscribe_patterns
-- Subscribe DAGs to all datasets that match a pattern, existing and future.
WITH made AS (
    INSERT INTO pattern_subscription (dag, pattern, expression)
    SELECT DISTINCT dag, pattern, expression
    FROM unnest($1::int[], $2::text[], $3::text[]) AS n (dag, pattern, expression)
    ON CONFLICT DO NOTHING
    RETURNING dag, expression
)
INSERT INTO dag_subscription (dataset, dag)
SELECT DISTINCT dataset.id, made.dag FROM made JOIN dataset ON dataset.uri ~ made.expression
ON CONFLICT DO NOTHING;

-- name: read_dag_condition_states
-- Return a DAG's condition states; its dag_state is locked.
SELECT partition_key, state FROM condition_state WHERE dag = $1 ORDER BY partition_key;

-- name: update_condition_states
-- Update a DAG's condition states.
UPDATE condition_state SET state = n.state, open = n.open
FROM unnest($2::text[], $3::bytea[], $4::boolean[]) AS n (partition_key, state, open)
WHERE condition_state.dag = $1 AND condition_state.partition_key = n.partition_key;

-- name: cancel_collecting_runs
-- Cancel runs that still collect events, and return them.
UPDATE run SET state = 'cancelled', error = $2, ended_at = now()
WHERE id = ANY($1::bigint[]) AND state = 'queued'
RETURNING run_id;

-- name: skip_pending_events
-- Skip the pending events of a DAG other than those of the kept ($2 partition, $3 input).
WITH dropped AS (
    DELETE FROM pending_event
    WHERE dag = $1 AND NOT EXISTS (
        SELECT FROM unnest($2::text[], $3::smallint[]) AS kept (partition_key, input)
        WHERE kept.partition_key = pending_event.partition_key AND kept.input = pending_event.input
    )
    RETURNING event, input, partition_key
)
INSERT INTO event_outcome (event, dag, input, partition_key, outcome, reason)
SELECT event, $1, input, partition_key, 'skipped', $4 FROM dropped
ON CONFLICT DO NOTHING;

-- name: move_pending_events
-- Renumber the inputs of a DAG's pending events: partition, input → new input.
WITH moved AS (
    DELETE FROM pending_event
    USING unnest($2::text[], $3::smallint[], $4::smallint[]) AS n (partition_key, input, new_input)
    WHERE pending_event.dag = $1 AND pending_event.partition_key = n.partition_key
      AND pending_event.input = n.input
    RETURNING pending_event.partition_key, n.new_input, pending_event.event
)
INSERT INTO pending_event (dag, partition_key, input, event)
-- The sort makes all deletions run before the first insertion: an event may move to an input that
-- it leaves.
SELECT $1, partition_key, new_input, event FROM moved ORDER BY partition_key, event, new_input;

-- name: read_pending_times
-- Return the times of the latest $4 pending events of each ($2 partition, $3 input).
SELECT requested.partition_key, requested.input, last.time
FROM unnest($2::text[], $3::smallint[], $4::int[]) AS requested (partition_key, input, latest)
CROSS JOIN LATERAL (
    SELECT least(event.time, event.recorded_at) AS time
    FROM pending_event JOIN event ON event.id = pending_event.event
    WHERE pending_event.dag = $1 AND pending_event.partition_key = requested.partition_key
      AND pending_event.input = requested.input
    ORDER BY 1 DESC LIMIT requested.latest
) AS last
ORDER BY last.time DESC;

-- name: set_schedule_timers
-- Set a DAG's timers: deadlines, and checks of runs that collect events.
INSERT INTO timer (due_at, kind, dag, node, key)
SELECT due_at, kind, $1, node, key
FROM unnest($2::timestamptz[], $3::text[], $4::int[], $5::text[])
  AS n (due_at, kind, node, key);

-- name: lock_dags_of_files
-- Lock the states of the DAGs of files $1 and of the DAGs $2, in order.
SELECT dag_state.dag FROM dag_state JOIN dag ON dag.id = dag_state.dag
WHERE dag.file = ANY($1::text[]) AND dag.present OR dag.dag_id = ANY($2::text[])
ORDER BY dag_state.dag
FOR UPDATE OF dag_state;

-- name: lock_dags
-- Lock the states of the DAGs $1, in order.
SELECT dag FROM dag_state WHERE dag = ANY($1::int[]) ORDER BY dag FOR UPDATE;

-- name: mark_missing_dags
-- Mark the DAGs of files $1 that are not among $2 as missing, and return those that were not yet;
-- their states are locked.
UPDATE dag_state SET missing_since = now()
FROM dag
WHERE dag.id = dag_state.dag AND dag.file = ANY($1::text[]) AND dag.present
  AND NOT dag.dag_id = ANY($2::text[]) AND dag_state.missing_since IS NULL
RETURNING dag.dag_id;

-- name: pin_dags
-- Pin the new runs of the DAGs $1 to their version in the bundle $2 of the same position, and
-- return those that were missing; their states are locked.
WITH requested AS (
    SELECT * FROM unnest($1::int[], $2::text[]) AS n (dag, bundle)
), versions AS (
    UPDATE dag_version SET bundle = requested.bundle
    FROM requested JOIN dag_state USING (dag)
    WHERE dag_version.id = dag_state.version AND dag_version.bundle <> requested.bundle
), returned AS (
    SELECT s.dag FROM dag_state AS s JOIN requested USING (dag) WHERE s.missing_since IS NOT NULL
), pinned AS (
    UPDATE dag_state SET
        source = requested.bundle || '-' || v.id || '-' || left(v.hash, 12), missing_since = NULL
    FROM requested, dag_version AS v
    WHERE dag_state.dag = requested.dag AND v.id = dag_state.version
      AND (dag_state.source <> requested.bundle || '-' || v.id || '-' || left(v.hash, 12)
           OR dag_state.missing_since IS NOT NULL)
)
SELECT dag.id, dag.dag_id FROM returned JOIN dag ON dag.id = returned.dag ORDER BY dag.dag_id;

-- name: resume_returned_dags
-- Set a timer at which DAGs that were missing decide about the events and ticks of that time.
INSERT INTO timer (due_at, kind, dag, key)
SELECT now(), 'subscribe', dag, 'returned' FROM dag_state
WHERE dag = ANY($1::int[]) AND NOT paused;

-- name: find_overdue_dags
-- Return the DAGs that are missing for $1 seconds, and how many seconds the others still have.
SELECT dag.id, greatest(0, extract(epoch FROM s.missing_since - now()) + $1::float8)::float8 AS left
FROM dag_state AS s JOIN dag ON dag.id = s.dag
WHERE s.missing_since IS NOT NULL AND dag.present
ORDER BY 1;

-- name: retire_dags
-- Retire the DAGs $1, which are missing: they get no more events and ticks; return them.
WITH retired AS (
    UPDATE dag SET present = false, version = 0, retired_at = dag_state.missing_since
    FROM dag_state
    WHERE dag.id = ANY($1::int[]) AND dag_state.dag = dag.id
      AND dag_state.missing_since IS NOT NULL AND dag.present
    RETURNING dag.id, dag.dag_id
), states AS (
    -- What waited for its return waits no more, unless a pause keeps it.
    UPDATE dag_state SET
        missing_since = NULL, catch_up_from = CASE WHEN paused THEN catch_up_from END
    FROM retired WHERE dag = retired.id
), subscriptions AS (
    DELETE FROM dag_subscription USING retired WHERE dag = retired.id
), patterns AS (
    DELETE FROM pattern_subscription USING retired WHERE dag = retired.id
), ticks AS (
    DELETE FROM timer USING retired WHERE timer.dag = retired.id
        AND timer.kind IN ('tick', 'held_tick')
)
SELECT dag_id FROM retired ORDER BY dag_id;

-- name: delete_ticks
-- Delete the ticks of DAGs and return when they were due.
DELETE FROM timer WHERE kind IN ('tick', 'held_tick') AND dag = ANY($1::int[])
RETURNING dag, node, due_at;

-- name: set_ticks
-- Set the next ticks.
INSERT INTO timer (due_at, kind, dag, node)
SELECT due_at, 'tick', dag, slot
FROM unnest($1::int[], $2::int[], $3::timestamptz[]) AS n (dag, slot, due_at)
ON CONFLICT DO NOTHING;
