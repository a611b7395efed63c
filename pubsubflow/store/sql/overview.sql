-- Reads that sum up many rows in one answer, for overviews.

-- name: count_runs_over_time
-- Count the runs from $1 until before $2 by state and by which of $5 equal stretches of the time from
-- $3 to $4 (seconds since 1970) they were made in; those of checks are left out.
SELECT width_bucket(date_part('epoch', run.created_at), $3, $4, $5) - 1 AS bucket, run.state,
       count(*) AS runs
FROM run
WHERE run.run_id >= $1 AND run.run_id < $2
  AND run.kind <> 'check'
GROUP BY 1, 2;

-- name: count_dag_runs_over_time
-- Count the runs of DAG $6; otherwise as count_runs_over_time.
SELECT width_bucket(date_part('epoch', run.created_at), $3, $4, $5) - 1 AS bucket, run.state,
       count(*) AS runs
FROM run
WHERE run.dag = $6 AND run.run_id >= $1 AND run.run_id < $2
GROUP BY 1, 2;

-- name: read_made_at
-- Return when a run was made.
SELECT created_at FROM run WHERE run_id = $1;

-- name: list_first_failures
-- Return the first task of each of the runs $1 that failed.
SELECT found.*
FROM unnest($1::bigint[]) AS wanted (run)
CROSS JOIN LATERAL (
    SELECT task.run, task.node, task.map_index, task.error FROM task
    WHERE task.run = wanted.run AND task.state = 'failed'
    ORDER BY task.node, task.map_index LIMIT 1
) AS found;

-- name: list_succeeded_since
-- Return those of the runs $1 after which one of the next 50 of their DAG, and partition, succeeded.
SELECT failed.id
FROM run AS failed
WHERE failed.id = ANY($1::bigint[]) AND EXISTS (
    SELECT FROM (
        SELECT later.state, later.partition FROM run AS later
        WHERE later.dag = failed.dag AND later.run_id > failed.run_id
        ORDER BY later.run_id LIMIT 50
    ) AS later
    WHERE later.state = 'success' AND later.partition IS NOT DISTINCT FROM failed.partition);

-- name: list_longest_runs
-- Return the ids of the runs under way that were made first.
SELECT run.id FROM run_live JOIN run ON run.id = run_live.run
WHERE run.kind <> 'check'
ORDER BY run.run_id LIMIT $1;

-- name: list_oldest_ready
-- Return the tasks that have been ready longest, and for $1 seconds at least, without a worker.
SELECT run, node, map_index, state, queued_at FROM task_live
WHERE state IN ('ready', 'queued') AND queued_at < now() - make_interval(secs => $1)
ORDER BY queued_at LIMIT $2;

-- name: page_grid_runs
-- Return the ids of the runs of DAG $1 before the run $2, the newest first.
SELECT run.id FROM run WHERE run.dag = $1 AND run.run_id < $2 ORDER BY run.run_id DESC LIMIT $3;

-- name: list_states_of_runs
-- Return the nodes of the runs $1 by state; mapped instances are not among them.
SELECT run, state, array_agg(node) AS nodes FROM (
    SELECT run, state, node FROM task WHERE run = ANY($1::bigint[]) AND map_index < 0
    UNION ALL
    SELECT run, state, node FROM task_live WHERE run = ANY($1::bigint[]) AND map_index < 0
) AS instance
GROUP BY run, state;

-- name: count_mapped_of_runs
-- Count the mapped instances of the runs $1 by node and state.
SELECT run, node, state, count(*) AS instances FROM task
WHERE run = ANY($1::bigint[]) AND map_index >= 0 GROUP BY run, node, state
UNION ALL
SELECT run, node, state, count(*) AS instances FROM task_live
WHERE run = ANY($1::bigint[]) AND map_index >= 0 GROUP BY run, node, state;

-- name: list_recent_runs
-- Return the last $2 runs of each of the DAGs $1, the newest first.
SELECT wanted.dag, recent.*
FROM unnest($1::int[]) AS wanted (dag)
CROSS JOIN LATERAL (
    SELECT run_id, state, created_at, ended_at FROM run
    WHERE run.dag = wanted.dag ORDER BY run.run_id DESC LIMIT $2
) AS recent
ORDER BY recent.run_id DESC;

-- name: page_tick_runs
-- Return the runs of DAG $1 among its newest $2 that its ticks made, at most $3.
SELECT * FROM (
    SELECT run_id, state, kind, created_at, ended_at, logical_time FROM run
    WHERE run.dag = $1 ORDER BY run.run_id DESC LIMIT $2
) AS newest
WHERE newest.kind = 'cron'
ORDER BY newest.run_id DESC LIMIT $3;

-- name: list_versions_of_present_dags
-- Return the version in force of every DAG that is present, but for those that checks are.
SELECT dag.id AS dag, s.version FROM dag JOIN dag_state AS s ON s.dag = dag.id
WHERE dag.present AND dag.dag_id NOT LIKE 'check:%';

-- name: list_inputs_of_dags
-- Return the datasets that the DAGs $1 subscribe to.
SELECT d.dag, dataset.uri FROM dag_subscription AS d JOIN dataset ON dataset.id = d.dataset
WHERE d.dag = ANY($1::int[])
ORDER BY d.dag, dataset.uri;

-- name: list_takers_of_datasets
-- Return the DAGs that subscribe to the datasets $1, but for those that checks are.
SELECT dataset.uri, d.dag FROM dataset
JOIN dag_subscription AS d ON d.dataset = dataset.id
JOIN dag ON dag.id = d.dag AND dag.present AND dag.dag_id NOT LIKE 'check:%'
WHERE dataset.uri = ANY($1::text[])
ORDER BY dataset.uri, dag.dag_id;

-- name: read_graph_dags
-- Return DAGs with the state of their last run.
SELECT dag.id, dag.dag_id, s.paused, (
    SELECT run.state FROM run WHERE run.dag = dag.id ORDER BY run.run_id DESC LIMIT 1
) AS state
FROM dag JOIN dag_state AS s ON s.dag = dag.id
WHERE dag.id = ANY($1::int[])
ORDER BY dag.dag_id;

-- name: read_graph_datasets
-- Return datasets by URI, with their last event and how many of their events checks hold.
SELECT dataset.uri, look.alert IS NOT NULL AS stale, (
    SELECT event.recorded_at FROM event
    WHERE event.dataset = dataset.id ORDER BY event.id DESC LIMIT 1
) AS last_at, (
    SELECT count(*) FROM (
        SELECT FROM held_event AS h
        WHERE h.dataset = dataset.id AND h.discarded_at IS NULL LIMIT 1000
    ) AS holding
) AS held
FROM dataset
LEFT JOIN freshness_look AS look ON look.dataset = dataset.uri
WHERE dataset.uri = ANY($1::text[])
ORDER BY dataset.uri;

-- name: list_table_sizes
-- Return the largest $1 tables with their size, partitions added up.
SELECT coalesce(parent.relname, c.relname)::text AS name,
       sum(pg_total_relation_size(c.oid))::bigint AS bytes,
       sum(greatest(c.reltuples, 0))::bigint AS rows
FROM pg_class AS c
LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
LEFT JOIN pg_class AS parent ON parent.oid = i.inhparent
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
GROUP BY 1 ORDER BY 2 DESC LIMIT $1;

-- name: read_database_size
-- Return the name, the size and the version of the database.
SELECT current_database()::text AS name, pg_database_size(current_database()) AS bytes,
       current_setting('server_version') AS version;

-- name: list_begun_slices
-- Return the slices of the history, the oldest first.
SELECT series, number, started_at FROM slice WHERE started_at IS NOT NULL ORDER BY series, number;

-- name: list_triggerers
-- Return the triggerers that are alive.
SELECT name, host, pid, capacity, running, started_at, seen_at FROM triggerer ORDER BY name;

-- name: list_leases
-- Return who does what only one daemon may do.
SELECT name, owner, seen_at FROM lease WHERE owner IS NOT NULL ORDER BY name;
