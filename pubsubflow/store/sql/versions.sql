-- Versions of DAGs: read.

-- name: page_dag_versions
-- Return versions of DAG $1 numbered below $2, the newest first, with whether their bundle is stored.
SELECT v.id, v.number, v.bundle, v.created_at, v.id = dag.version AS in_force,
       EXISTS (SELECT FROM bundle WHERE bundle.hash = v.bundle) AS stored
FROM dag JOIN dag_version AS v ON v.dag = dag.id
WHERE dag.id = $1 AND v.number < $2
ORDER BY v.number DESC
LIMIT $3;

-- name: count_runs_of_versions
-- Count those of the newest $2 runs of DAG $1 that were made at $3 or later, null for any time, by
-- version, with the seconds that those took that succeeded.
SELECT version, count(*) AS total,
       count(*) FILTER (WHERE ended_at IS NULL) AS running,
       count(*) FILTER (WHERE state = 'success') AS success,
       count(*) FILTER (WHERE state = 'failed') AS failed,
       count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
       avg(seconds) FILTER (WHERE state = 'success') AS mean_seconds,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds) FILTER (WHERE state = 'success')
           AS p95_seconds
FROM (
    SELECT version, state, ended_at, created_at,
           extract(epoch FROM ended_at - started_at)::float8 AS seconds
    FROM run WHERE dag = $1 ORDER BY run_id DESC LIMIT $2
) AS newest
WHERE $3::timestamptz IS NULL OR created_at >= $3
GROUP BY version;

-- name: read_versions_in_use
-- Return which versions of a DAG are in use, under the lock of the catalog.
SELECT dag.id, dag.present, dag.version, s.version AS scheduled, in_force.number AS in_force,
       coalesce(p.newest, dag.version) AS newest_version, p.dag IS NOT NULL AS pinned,
       s.canary AS canary_version, canary.number AS canary, s.edits,
       coalesce(newest.number, 0) AS newest
FROM dag
JOIN dag_state AS s ON s.dag = dag.id
JOIN dag_version AS in_force ON in_force.id = s.version
LEFT JOIN dag_pin AS p ON p.dag = dag.id
LEFT JOIN dag_version AS newest ON newest.id = coalesce(p.newest, dag.version)
LEFT JOIN dag_version AS canary ON canary.id = s.canary
WHERE dag.dag_id = $1;

-- name: find_version_before
-- Return the number of the version of DAG $1 that is next below $2.
SELECT max(number) AS number FROM dag_version WHERE dag = $1 AND number < $2;

-- name: find_stored_versions
-- Return versions of DAG $1 with numbers $2, and whether their bundles are stored.
SELECT v.id, v.number, v.hash, v.bundle, v.spec,
       EXISTS (SELECT FROM bundle WHERE bundle.hash = v.bundle) AS stored
FROM dag_version AS v WHERE v.dag = $1 AND v.number = ANY($2::int[]);

-- name: pin_version
-- Pin DAG $1 to a version, with what its runs are pinned to; $4 is what its file defines.
INSERT INTO dag_pin (dag, version, source, newest, pinned_by) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (dag) DO UPDATE SET
    version = excluded.version, source = excluded.source, pinned_at = now(),
    pinned_by = excluded.pinned_by;

-- name: unpin_version
-- Have a DAG follow its file again.
DELETE FROM dag_pin WHERE dag = $1;

-- name: put_version_in_force
-- Put version $2 of DAG $1 in force.
UPDATE dag SET version = $2 WHERE id = $1;

-- name: set_version_shares
-- Set what new runs of DAG $1 are pinned to, and the version that takes a share of them.
UPDATE dag_state SET
    source = $2, canary = $3, canary_share = $4, canary_source = $5,
    canary_since = CASE WHEN $3::bigint IS NULL THEN NULL
                        WHEN canary = $3 THEN canary_since ELSE now() END,
    edits = edits + 1
WHERE dag = $1;

-- name: list_pins
-- Return the pins of the DAGs $1, with whether the DAG has no version in force as it was retired.
SELECT p.dag, dag.dag_id, p.version, v.number, v.spec, dag.version = 0 AS retired
FROM dag_pin AS p
JOIN dag ON dag.id = p.dag
JOIN dag_version AS v ON v.id = p.version
WHERE p.dag = ANY($1::int[])
ORDER BY p.dag;

-- name: note_newest_versions
-- Note of pinned DAGs which version their file defines: dag, hash, and the bundle that it is in.
WITH found AS (
    SELECT p.dag, v.id, requested.bundle
    FROM unnest($1::int[], $2::text[], $3::text[]) AS requested (dag, hash, bundle)
    JOIN dag_pin AS p ON p.dag = requested.dag
    JOIN dag_version AS v ON v.dag = requested.dag AND v.hash = requested.hash
), pins AS (
    UPDATE dag_pin SET newest = found.id FROM found
    WHERE dag_pin.dag = found.dag AND dag_pin.newest <> found.id
)
UPDATE dag_version SET bundle = found.bundle FROM found
WHERE dag_version.id = found.id AND dag_version.bundle <> found.bundle;

-- name: advance_newest_versions
-- Note that the files of pinned DAGs $1 are in the bundle $2, too.
UPDATE dag_version SET bundle = $2 FROM dag_pin
WHERE dag_pin.dag = ANY($1::int[]) AND dag_version.id = dag_pin.newest
  AND dag_version.id <> dag_pin.version AND dag_version.bundle <> $2;
