-- What the loader writes: files, sources, DAGs, versions, subscriptions.

-- name: lock_catalog
-- One loader writes at a time.
SELECT pg_advisory_xact_lock(7233002);

-- name: list_good_files
-- Return the files that were read without an error.
SELECT file, source FROM dag_file WHERE error IS NULL;

-- name: save_sources
-- Keep sources by their hash.
INSERT INTO source (hash, bundle)
SELECT DISTINCT ON (hash) hash, bundle FROM unnest($1::text[], $2::bytea[]) AS n (hash, bundle)
ON CONFLICT (hash) DO NOTHING;

-- name: read_source
-- Return a source by its hash.
SELECT bundle FROM source WHERE hash = $1;

-- name: save_files
-- Record files as they are now.
INSERT INTO dag_file (file, source, error, traceback, seconds)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::float8[])
ON CONFLICT (file) DO UPDATE SET
    source = excluded.source, error = excluded.error, traceback = excluded.traceback,
    seconds = excluded.seconds, read_at = now();

-- name: read_file_errors
-- Return why the files $1 could not be imported the last time, where they could not.
SELECT file, error FROM dag_file WHERE file = ANY($1::text[]) AND error IS NOT NULL;

-- name: remove_files
-- Forget files that are gone.
DELETE FROM dag_file WHERE file = ANY($1::text[]);

-- name: save_datasets
-- Record datasets as files declare them.
INSERT INTO dataset (uri, name, grp, extra)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::jsonb[])
ON CONFLICT (uri) DO UPDATE SET
    name = excluded.name, grp = excluded.grp, extra = excluded.extra
WHERE (dataset.name, dataset.grp, dataset.extra)
      IS DISTINCT FROM (excluded.name, excluded.grp, excluded.extra);

-- name: save_dags
-- Make DAGs known and present; returns the numbers of all.
WITH asked AS (
    SELECT * FROM unnest($1::text[], $2::text[]) AS n (dag_id, file)
)
INSERT INTO dag (dag_id, file) SELECT dag_id, file FROM asked ORDER BY dag_id
ON CONFLICT (dag_id) DO UPDATE SET file = excluded.file, present = true
RETURNING id, dag_id;

-- name: save_versions
-- Make versions and put them in force; returns those that were not: dag, version and its number.
WITH asked AS (
    SELECT * FROM unnest($1::int[], $2::text[], $3::bytea[]) AS n (dag, hash, spec)
), made AS (
    INSERT INTO dag_version (dag, number, hash, spec)
    SELECT asked.dag,
           1 + coalesce((SELECT max(number) FROM dag_version AS v WHERE v.dag = asked.dag), 0),
           asked.hash, asked.spec
    FROM asked
    WHERE NOT EXISTS (
        SELECT FROM dag_version AS v WHERE v.dag = asked.dag AND v.hash = asked.hash
    )
    RETURNING id, dag, number
), wanted AS (
    SELECT id, dag, number FROM made
    UNION ALL
    SELECT v.id, v.dag, v.number FROM dag_version AS v JOIN asked USING (dag, hash)
)
UPDATE dag SET version = wanted.id
FROM wanted
LEFT JOIN gate ON gate.dag = wanted.dag
WHERE dag.id = wanted.dag AND (dag.version <> wanted.id OR gate.version IS DISTINCT FROM wanted.id)
RETURNING wanted.dag, wanted.id AS version, wanted.number;

-- name: lock_changed_gates
-- Lock the gates of DAGs that change, in order, with the spec in force so far.
SELECT gate.dag, dag_version.spec
FROM gate JOIN dag_version ON dag_version.id = gate.version
WHERE gate.dag = ANY($1::int[])
ORDER BY gate.dag
FOR UPDATE OF gate;

-- name: open_gates
-- Put versions in force at the gates; a new gate has caught up but for what it asks of the past.
INSERT INTO gate (dag, version, since)
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

-- name: catch_up_later
-- Let the clock have new subscriptions look at the past.
INSERT INTO timer (due_at, kind, dag)
SELECT now(), 'subscribe', dag FROM gate WHERE dag = ANY($1::int[]) AND since IS NOT NULL
  AND NOT paused;

-- name: drop_subscriptions
-- Forget what DAGs subscribed to.
WITH gone AS (DELETE FROM pattern WHERE dag = ANY($1::int[]))
DELETE FROM subscription WHERE dag = ANY($1::int[]);

-- name: subscribe
-- Subscribe DAGs to datasets.
INSERT INTO subscription (dataset, dag)
SELECT DISTINCT dataset.id, n.dag
FROM unnest($1::int[], $2::text[]) AS n (dag, uri) JOIN dataset USING (uri)
ON CONFLICT DO NOTHING;

-- name: await_new_datasets
-- Wait for those who make datasets known without knowing of a new pattern; others wait for us.
LOCK TABLE dataset IN SHARE ROW EXCLUSIVE MODE;

-- name: subscribe_patterns
-- Subscribe DAGs to all datasets that match, now and later.
WITH made AS (
    INSERT INTO pattern (dag, pattern, expression)
    SELECT DISTINCT dag, pattern, expression
    FROM unnest($1::int[], $2::text[], $3::text[]) AS n (dag, pattern, expression)
    ON CONFLICT DO NOTHING
    RETURNING dag, expression
)
INSERT INTO subscription (dataset, dag)
SELECT DISTINCT dataset.id, made.dag FROM made JOIN dataset ON dataset.uri ~ made.expression
ON CONFLICT DO NOTHING;

-- name: read_dag_cells
-- Return a DAG's cells; its gate is locked.
SELECT key, state FROM cell WHERE dag = $1 ORDER BY key;

-- name: write_dag_cells
-- Write a DAG's cells back.
UPDATE cell SET state = n.state, open = n.open
FROM unnest($2::text[], $3::bytea[], $4::boolean[]) AS n (key, state, open)
WHERE cell.dag = $1 AND cell.key = n.key;

-- name: cancel_collecting
-- Cancel runs that collected events and will not start; returns them.
UPDATE run SET state = 'cancelled', error = $2, ended_at = now()
WHERE id = ANY($1::bigint[]) AND state = 'queued'
RETURNING run_id;

-- name: skip_unasked
-- Skip what is pending for a DAG in other cells and places than ($2, $3).
WITH dropped AS (
    DELETE FROM pending
    WHERE dag = $1 AND NOT EXISTS (
        SELECT FROM unnest($2::text[], $3::smallint[]) AS kept (cell, place)
        WHERE kept.cell = pending.cell AND kept.place = pending.place
    )
    RETURNING event, place, cell
)
INSERT INTO event_fate (event, dag, place, cell, fate, reason)
SELECT event, $1, place, cell, 'skipped', $4 FROM dropped
ON CONFLICT DO NOTHING;

-- name: move_pending
-- Renumber the places of what is pending for a DAG: cell, place → new place. The sort lets all old
-- rows go before the first new one comes: an event may move to a place that it leaves.
WITH moved AS (
    DELETE FROM pending
    USING unnest($2::text[], $3::smallint[], $4::smallint[]) AS n (cell, place, new_place)
    WHERE pending.dag = $1 AND pending.cell = n.cell AND pending.place = n.place
    RETURNING pending.cell, n.new_place, pending.event
)
INSERT INTO pending (dag, cell, place, event)
SELECT $1, cell, new_place, event FROM moved ORDER BY cell, event, new_place;

-- name: read_pending_times
-- Return the times of the last $4 events by time that are pending in each cell's place.
SELECT asked.cell, asked.place, last.time
FROM unnest($2::text[], $3::smallint[], $4::int[]) AS asked (cell, place, most)
CROSS JOIN LATERAL (
    SELECT least(event.time, event.recorded_at) AS time
    FROM pending JOIN event ON event.id = pending.event
    WHERE pending.dag = $1 AND pending.cell = asked.cell AND pending.place = asked.place
    ORDER BY 1 DESC LIMIT asked.most
) AS last
ORDER BY last.time DESC;

-- name: set_carried_timers
-- Set a DAG's timers: deadlines, and looks at runs that collect events.
INSERT INTO timer (due_at, kind, dag, node, cell)
SELECT due_at, kind, $1, node, cell
FROM unnest($2::timestamptz[], $3::text[], $4::int[], $5::text[]) AS n (due_at, kind, node, cell);

-- name: retire_missing_dags
-- DAGs of the files $1 that are not among $2 any more take no events and no ticks; returns them.
WITH retired AS (
    UPDATE dag SET present = false, version = 0
    WHERE file = ANY($1::text[]) AND present AND NOT dag_id = ANY($2::text[])
    RETURNING id, dag_id
), silent AS (
    DELETE FROM subscription USING retired WHERE dag = retired.id
), deaf AS (
    DELETE FROM pattern USING retired WHERE dag = retired.id
), timeless AS (
    DELETE FROM timer USING retired WHERE timer.dag = retired.id AND timer.kind = 'tick'
)
SELECT dag_id FROM retired ORDER BY dag_id;

-- name: drop_ticks
-- Forget the ticks of DAGs; returns when they were due.
DELETE FROM timer WHERE kind = 'tick' AND dag = ANY($1::int[])
RETURNING dag, node, due_at;

-- name: set_ticks
-- Set the next ticks.
INSERT INTO timer (due_at, kind, dag, node)
SELECT due_at, 'tick', dag, slot
FROM unnest($1::int[], $2::int[], $3::timestamptz[]) AS n (dag, slot, due_at)
ON CONFLICT DO NOTHING;
