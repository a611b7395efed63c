-- Reads about DAGs, datasets and events. Queries named page_* return ids in order; others read the
-- rows behind the ids.

-- name: page_dags
-- Return the ids of the DAGs present, after the name $1, with $4 in their name, in lower case; those
-- that checks are if $3; only those of the names $5, if given.
SELECT id FROM dag
WHERE dag_id > $1 AND present AND (dag_id LIKE 'check:%') = $3
  AND ($4 = '' OR strpos(lower(dag_id), $4) > 0)
  AND ($5::text[] IS NULL OR dag_id = ANY($5))
ORDER BY dag_id LIMIT $2;

-- name: find_dag
-- Return the id of a DAG, a retired one included.
SELECT id FROM dag WHERE dag_id = $1;

-- name: list_dag_versions_in_force
-- Return the version in force of every DAG.
SELECT dag, version FROM dag_state ORDER BY dag;

-- name: list_dag_names_in_force
-- Return the name of every DAG with its version in force.
SELECT dag.dag_id, s.version FROM dag JOIN dag_state AS s ON s.dag = dag.id ORDER BY dag.id;

-- name: find_dag_numbers
-- Return the ids of DAGs, retired ones included.
SELECT id FROM dag WHERE dag_id = ANY($1::text[]);

-- name: read_dags
-- Return DAGs with their state, last run and next tick.
SELECT dag.id, dag.dag_id, dag.file, dag.present, s.missing_since, dag.created_at, s.version, s.paused,
       s.active, s.queued,
       s.edits,
       ARRAY(SELECT c.state FROM condition_state AS c
             WHERE c.dag = dag.id AND c.open LIMIT 1000) AS states,
       v.number, p.dag IS NOT NULL AS pinned, p.pinned_at, p.pinned_by,
       coalesce(newest.number, v.number) AS newest, s.canary, s.canary_share, s.canary_since,
       last.run_id, last.state,
       last.created_at AS last_created_at, last.ended_at AS last_ended_at,
       (SELECT min(due_at) FROM timer WHERE timer.dag = dag.id AND kind = 'tick') AS due_at,
       dag_file.error
FROM dag
JOIN dag_state AS s ON s.dag = dag.id
JOIN dag_version AS v ON v.id = s.version
LEFT JOIN dag_pin AS p ON p.dag = dag.id
LEFT JOIN dag_version AS newest ON newest.id = p.newest
LEFT JOIN dag_file ON dag_file.file = dag.file
LEFT JOIN LATERAL (
    SELECT run_id, state, created_at, ended_at FROM run
    WHERE run.dag = dag.id ORDER BY run.run_id DESC LIMIT 1
) AS last ON true
WHERE dag.id = ANY($1::int[])
ORDER BY dag.dag_id;

-- name: read_version_number
-- Return the number of a version.
SELECT number FROM dag_version WHERE id = $1;

-- name: list_import_errors
-- Return the files that cannot be imported.
SELECT file, error, traceback, read_at FROM dag_file WHERE error IS NOT NULL ORDER BY file;

-- name: page_datasets
-- Return the ids of datasets after the URI $1, with $3 in their URI, in lower case; those of which
-- checks hold events if $4, those that are stale if $5; only those that match one of the expressions
-- $6, if given.
SELECT id FROM dataset
WHERE uri > $1 AND ($3 = '' OR strpos(lower(uri), $3) > 0)
  AND (NOT $4 OR EXISTS (
      SELECT FROM held_event AS h WHERE h.dataset = dataset.id AND h.discarded_at IS NULL))
  AND (NOT $5 OR EXISTS (
      SELECT FROM freshness_look AS look WHERE look.dataset = dataset.uri AND look.alert IS NOT NULL))
  AND ($6::text[] IS NULL OR uri ~ ANY($6))
ORDER BY uri LIMIT $2;

-- name: read_datasets
-- Return datasets, with the last event, the subscribed DAGs, and how fresh they are to be.
SELECT dataset.uri, dataset.name, dataset.group_name, dataset.extra, dataset.created_at,
       last.event_id, last.time, consumers.names, freshness.seconds, look.alert, (
           SELECT count(*) FROM dag_subscription AS d JOIN dag ON dag.id = d.dag
           WHERE d.dataset = dataset.id AND dag.dag_id LIKE 'check:%'
       ) AS checks, (
           SELECT count(*) FROM (
               SELECT FROM held_event AS h
               WHERE h.dataset = dataset.id AND h.discarded_at IS NULL LIMIT 1001
           ) AS holding
       ) AS held
FROM dataset
LEFT JOIN LATERAL (
    SELECT event_id, time FROM event
    WHERE event.dataset = dataset.id ORDER BY event.id DESC LIMIT 1
) AS last ON true
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(dag.dag_id ORDER BY dag.dag_id), '{}') AS names
    FROM dag_subscription JOIN dag ON dag.id = dag_subscription.dag
    WHERE dag_subscription.dataset = dataset.id AND dag.dag_id NOT LIKE 'check:%'
) AS consumers
LEFT JOIN freshness ON freshness.dataset = dataset.uri
LEFT JOIN freshness_look AS look ON look.dataset = dataset.uri
WHERE dataset.id = ANY($1::int[])
ORDER BY dataset.uri;

-- name: list_consumers
-- Return the DAGs that subscribe to a dataset, and how many of its events each has pending, up to
-- 1,000, since when.
SELECT dag.dag_id, s.paused, waiting.pending, waiting.since
FROM dag_subscription AS d
JOIN dag ON dag.id = d.dag
JOIN dag_state AS s ON s.dag = d.dag
CROSS JOIN LATERAL (
    SELECT count(*) AS pending, min(recorded_at) AS since
    FROM (
        SELECT DISTINCT event.id, event.recorded_at
        FROM pending_event JOIN event ON event.id = pending_event.event
        WHERE pending_event.dag = d.dag AND event.dataset = $1
        LIMIT 1000
    ) AS oldest
) AS waiting
WHERE d.dataset = $1 AND dag.dag_id NOT LIKE 'check:%'
ORDER BY dag.dag_id;

-- name: list_checks_of_dataset
-- Return the checks of a dataset, and how many of its events each holds, up to 1,000.
SELECT substring(dag.dag_id FROM 7) AS check, s.paused, (
    SELECT count(*) FROM (
        SELECT FROM check_result AS r
        WHERE r.dag = d.dag AND r.holding AND r.dataset = $1 LIMIT 1000
    ) AS holding
) AS held
FROM dag_subscription AS d
JOIN dag ON dag.id = d.dag
JOIN dag_state AS s ON s.dag = d.dag
WHERE d.dataset = $1 AND dag.dag_id LIKE 'check:%'
ORDER BY dag.dag_id;

-- name: list_versions_that_name
-- Return the versions in force whose spec has a URI in it.
SELECT v.id FROM dag
JOIN dag_state AS s ON s.dag = dag.id
JOIN dag_version AS v ON v.id = s.version
WHERE dag.present AND position(convert_to($1, 'UTF8') IN v.spec) > 0;

-- name: list_open_alerts_of_dataset
-- Return the open alerts of a dataset, the oldest first.
SELECT id, kind, text, opened_at FROM alert
WHERE dataset = $1 AND ended_at IS NULL ORDER BY id;

-- name: find_dataset
-- Return the id of a dataset.
SELECT id FROM dataset WHERE uri = $1;

-- name: find_event
-- Return the position of an event in the log, or its number if checks hold it.
SELECT id FROM event WHERE event_id = $1
UNION ALL
SELECT id FROM held_event WHERE event_id = $1;

-- name: read_events_pruned_until
-- Return the moment before which retention has removed events, but for those that something waits
-- for; no row while the first slice is there.
SELECT min(started_at) AS until FROM slice WHERE series = 'event' HAVING min(number) > 0;

-- name: find_event_bounds
-- Return the first position of events recorded at $1 or later, and the one behind the last recorded
-- before $2; in positions, events of transactions side by side may stand in another order.
SELECT
    (SELECT min(id) FROM (
        SELECT id FROM event WHERE recorded_at >= $1 ORDER BY recorded_at LIMIT 1000
    ) AS later) AS first,
    (SELECT max(id) + 1 FROM (
        SELECT id FROM event WHERE recorded_at < $2 ORDER BY recorded_at DESC LIMIT 1000
    ) AS earlier) AS behind;

-- part: recorded_events
id < least($1::bigint, $4::bigint) AND id >= $3 AND ($7::text IS NULL OR partition = $7)
          AND ($5::timestamptz IS NULL OR recorded_at >= $5)
          AND ($6::timestamptz IS NULL OR recorded_at < $6)
    ORDER BY id DESC LIMIT $2)

-- part: held_events
id < $1 AND ($7::text IS NULL OR partition = $7)
          AND ($5::timestamptz IS NULL OR held_at >= $5)
          AND ($6::timestamptz IS NULL OR held_at < $6)
    ORDER BY id DESC LIMIT $2)

-- name: page_events
-- Return positions of events below $1, newest first, with the numbers of those that checks hold;
-- of partition $7, recorded from $5 on and before $6, which is between the positions $3 and $4.
SELECT id FROM (
    (SELECT id FROM event WHERE
-- include recorded_events
    UNION ALL
    (SELECT id FROM held_event WHERE
-- include held_events
) AS found
ORDER BY id DESC LIMIT $2;

-- name: page_dataset_events
-- Return positions of events of dataset $8 as page_events does.
SELECT id FROM (
    (SELECT id FROM event WHERE dataset = $8 AND
-- include recorded_events
    UNION ALL
    (SELECT id FROM held_event WHERE dataset = $8 AND
-- include held_events
) AS found
ORDER BY id DESC LIMIT $2;

-- name: read_events
-- Return events and the tasks that emitted them, newest first; also events that checks hold.
SELECT found.id, found.event_id, dataset.uri, found.extra, found.partition, found.time,
       found.recorded_at, found.source, found.run, found.node, found.map_index, found.ancestry,
       run.run_id, run.version, dag.dag_id, found.held, found.discarded_by, found.note
-- Not `id = ANY($1)`, for which each partition would be looked through.
FROM unnest($1::bigint[]) AS requested (id)
JOIN LATERAL (
    SELECT event.id, event.event_id, event.dataset, event.extra, event.partition, event.time,
           event.recorded_at, event.source, event.run, event.node, event.map_index, event.ancestry,
           false AS held, NULL::text AS discarded_by, NULL::text AS note
    FROM event WHERE event.id = requested.id
    UNION ALL
    SELECT h.id, h.event_id, h.dataset, h.extra, h.partition, h.time, h.held_at, h.source, h.run,
           h.node, h.map_index, h.ancestry, true, h.discarded_by, h.note
    FROM held_event AS h WHERE h.id = requested.id
) AS found ON true
JOIN dataset ON dataset.id = found.dataset
LEFT JOIN run ON run.id = found.run
LEFT JOIN dag ON dag.id = run.dag
ORDER BY found.id DESC;

-- name: read_workers
-- Return all workers that have not signed off.
SELECT worker, host, pid, slots, busy, queues, free_sync, free_async, memory, cpu, free_memory,
       free_cpu, started_at, seen_at, version, protocol
FROM worker ORDER BY worker;

-- name: read_served_queues
-- Return the queues that workers serve, with the sums of their free slots.
SELECT queue, count(*) AS workers, sum(free_sync) AS free_sync, sum(free_async) AS free_async
FROM worker, unnest(queues) AS queue
GROUP BY queue;

-- name: count_queued_tasks
-- Return how many tasks of the newest $2 runs of DAG $1 wait for a worker, by version and node.
SELECT run_live.version, task_live.node, count(*) AS tasks
FROM (SELECT id FROM run WHERE dag = $1 ORDER BY run_id DESC LIMIT $2) AS newest
JOIN run_live ON run_live.run = newest.id
JOIN task_live ON task_live.run = newest.id AND task_live.state = 'queued'
GROUP BY run_live.version, task_live.node;
