-- The state of DAGs: small values that their tasks keep from run to run.

-- name: read_state_value
-- Return a value of the state of run $1's DAG, with its version.
SELECT s.value, s.version
FROM run JOIN state_value AS s ON s.dag = run.dag
WHERE run.id = $1 AND s.name = $2;

-- name: prepare_state_values
-- Make the rows of values that were never set, so that they can be locked.
INSERT INTO state_value (dag, name, version)
SELECT DISTINCT run.dag, n.name, 0
FROM unnest($1::bigint[], $2::text[]) AS n (run, name) JOIN run ON run.id = n.run
ORDER BY run.dag, n.name
ON CONFLICT (dag, name) DO NOTHING;

-- name: lock_state_values
-- Lock values of the state of runs' DAGs, in key order, and return their versions.
SELECT s.dag, s.name, s.version
FROM state_value AS s
WHERE (s.dag, s.name) IN (
    SELECT run.dag, n.name
    FROM unnest($1::bigint[], $2::text[]) AS n (run, name) JOIN run ON run.id = n.run
)
ORDER BY s.dag, s.name
FOR UPDATE;

-- name: save_state_values
-- Set locked values.
UPDATE state_value AS s
SET value = n.value, version = n.version, run = n.run, node = n.node, map_index = n.map_index,
    updated_at = now()
FROM unnest($1::int[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::int[], $7::int[])
  AS n (dag, name, value, version, run, node, map_index)
WHERE s.dag = n.dag AND s.name = n.name;

-- name: list_state
-- Return the values that are set of DAG $1, after the name $2, $3 at most; of one name if $4.
SELECT s.name, s.value, s.version, s.updated_at, run.run_id, run.version AS spec, s.node,
       s.map_index
FROM state_value AS s LEFT JOIN run ON run.id = s.run
WHERE s.dag = $1 AND s.value IS NOT NULL AND s.name > $2 AND ($4::text IS NULL OR s.name = $4)
ORDER BY s.name
LIMIT $3;

-- name: set_state
-- Set a value of a DAG by hand, or reset it by NULL.
INSERT INTO state_value (dag, name, value, version)
VALUES ($1, $2, $3, 1)
ON CONFLICT (dag, name) DO UPDATE
SET value = excluded.value, version = state_value.version + 1, run = NULL, node = NULL,
    map_index = NULL, updated_at = now();
