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
-- Make versions and put them in force; returns those that were not, dag and version.
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
    RETURNING id, dag
), wanted AS (
    SELECT id, dag FROM made
    UNION ALL
    SELECT v.id, v.dag FROM dag_version AS v JOIN asked USING (dag, hash)
)
UPDATE dag SET version = wanted.id
FROM wanted
LEFT JOIN gate ON gate.dag = wanted.dag
WHERE dag.id = wanted.dag AND (dag.version <> wanted.id OR gate.version IS DISTINCT FROM wanted.id)
RETURNING wanted.dag, wanted.id AS version;

-- name: lock_changed_gates
-- Lock the gates of DAGs that change, in order, with the spec in force so far.
SELECT gate.dag, gate.pending, dag_version.spec
FROM gate JOIN dag_version ON dag_version.id = gate.version
WHERE gate.dag = ANY($1::int[])
ORDER BY gate.dag
FOR UPDATE OF gate;

-- name: open_gates
-- Put versions in force at the gates.
INSERT INTO gate (dag, version)
SELECT * FROM unnest($1::int[], $2::bigint[])
ON CONFLICT (dag) DO UPDATE SET version = excluded.version;

-- name: drop_subscriptions
-- Forget what DAGs subscribed to.
DELETE FROM subscription WHERE dag = ANY($1::int[]);

-- name: subscribe
-- Subscribe DAGs to datasets.
INSERT INTO subscription (dataset, dag)
SELECT DISTINCT dataset.id, n.dag
FROM unnest($1::int[], $2::text[]) AS n (dag, uri) JOIN dataset USING (uri);

-- name: move_pending
-- Renumber the places of a DAG's pending events; those of other places are forgotten.
-- The sort lets all old rows go before the first new one comes: an event may move to a place that
-- it leaves.
WITH moved AS (
    DELETE FROM pending WHERE dag = $1 RETURNING place, event
)
INSERT INTO pending (dag, place, event)
SELECT $1, n.new_place, moved.event
FROM moved JOIN unnest($2::smallint[], $3::smallint[]) AS n (place, new_place) USING (place)
ORDER BY moved.event, n.new_place;

-- name: count_pending
-- Count a DAG's pending events anew, over $2 places.
UPDATE gate SET pending = ARRAY(
    SELECT count(pending.event)::int
    FROM generate_series(0, $2::int - 1) AS places (place)
    LEFT JOIN pending ON pending.dag = $1 AND pending.place = places.place
    GROUP BY places.place
    ORDER BY places.place
)
WHERE dag = $1;

-- name: retire_missing_dags
-- DAGs of the files $1 that are not among $2 any more take no events and no ticks.
WITH retired AS (
    UPDATE dag SET present = false, version = 0
    WHERE file = ANY($1::text[]) AND present AND NOT dag_id = ANY($2::text[])
    RETURNING id
), silent AS (
    DELETE FROM subscription USING retired WHERE dag = retired.id
)
DELETE FROM timer USING retired WHERE timer.dag = retired.id AND timer.kind = 'tick';

-- name: drop_ticks
-- Forget the ticks of DAGs; returns when they were due.
DELETE FROM timer WHERE kind = 'tick' AND dag = ANY($1::int[])
RETURNING dag, due_at;

-- name: set_ticks
-- Set the next ticks.
INSERT INTO timer (due_at, kind, dag)
SELECT due_at, 'tick', dag FROM unnest($1::int[], $2::timestamptz[]) AS n (dag, due_at)
ON CONFLICT DO NOTHING;
