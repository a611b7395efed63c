-- Reads that explain why a DAG's schedule has not fired.

-- name: read_dag_state
-- Return a DAG with its state and the error of its file.
SELECT dag.dag_id, dag.present, s.version, s.paused, s.active, s.queued, s.catch_up_from,
       s.missing_since, dag_file.error
FROM dag
JOIN dag_state AS s ON s.dag = dag.id
LEFT JOIN dag_file ON dag_file.file = dag.file
WHERE dag.id = $1;

-- name: list_next_ticks
-- Return the next ticks of a DAG's timetables.
SELECT node AS slot, due_at FROM timer WHERE kind = 'tick' AND dag = $1;

-- name: list_open_condition_states
-- Return the partitions of a DAG in which events are pending or a run is collecting, $2 at most.
SELECT partition_key, state FROM condition_state
WHERE dag = $1 AND open
ORDER BY partition_key
LIMIT $2;

-- name: read_last_events
-- Return the newest event for each input: its number, URI, and the expression of a pattern.
SELECT requested.input, last.event_id, last.recorded_at
FROM unnest($2::int[], $3::text[], $4::text[]) AS requested (input, uri, expression)
CROSS JOIN LATERAL (
    SELECT newest.id, newest.event_id, newest.recorded_at
    FROM dag_subscription AS s
    JOIN dataset ON dataset.id = s.dataset
    CROSS JOIN LATERAL (
        SELECT id, event_id, recorded_at FROM event
        WHERE event.dataset = dataset.id ORDER BY event.id DESC LIMIT 1
    ) AS newest
    WHERE s.dag = $1
      AND (dataset.uri = requested.uri AND requested.expression IS NULL
           OR dataset.uri ~ requested.expression)
    ORDER BY newest.id DESC
    LIMIT 1
) AS last;

-- name: count_unprocessed_events
-- Count the events from $2 on that a DAG has not processed, $3 at most.
SELECT count(*) AS events, min(recorded_at) AS since
FROM (
    SELECT recorded_at FROM event
    WHERE event.dataset IN (SELECT dataset FROM dag_subscription WHERE dag = $1) AND event.id >= $2
    ORDER BY event.id LIMIT $3
) AS held;

-- name: count_recent_outcomes
-- Count the outcomes of a DAG's events in the last day, among the latest 10,000.
SELECT input, outcome, count(*) AS events, max(event) AS last,
       (array_agg(reason ORDER BY event DESC))[1] AS reason
FROM (
    SELECT * FROM event_outcome WHERE dag = $1 ORDER BY event DESC LIMIT 10000
) AS recent
WHERE at > now() - interval '1 day' AND ($2::text IS NULL OR partition_key = $2)
GROUP BY input, outcome;

-- name: count_expired_events
-- Count pending events of the inputs $3 of a partition from before the times $4, up to 1,000 each.
SELECT requested.input, (
    SELECT count(*) FROM (
        SELECT FROM pending_event JOIN event ON event.id = pending_event.event
        WHERE pending_event.dag = $1 AND pending_event.partition_key = $2
          AND pending_event.input = requested.input
          AND least(event.time, event.recorded_at) < requested.before
        LIMIT 1000
    ) AS old
) AS events
FROM unnest($3::smallint[], $4::timestamptz[]) AS requested (input, before);

-- name: find_last_run
-- Return the newest run of a DAG, of partition $2 if given, among the latest 10,000.
SELECT id FROM (
    SELECT id, run_id, partition FROM run WHERE dag = $1 ORDER BY run_id DESC LIMIT 10000
) AS recent
WHERE $2::text IS NULL OR partition = $2
ORDER BY run_id DESC
LIMIT 1;

-- name: read_run_id
-- Return the public id of a run.
SELECT run_id FROM run WHERE id = $1;

-- name: list_open_letters_of_dag
-- Return the reasons of a DAG's open dead letters, newest first, $2 at most.
SELECT reason FROM dead_letter
WHERE dag = $1 AND resent_at IS NULL AND discarded_at IS NULL
ORDER BY id DESC
LIMIT $2;

-- name: list_troubled_watches
-- Return the watches of a DAG's datasets that fail, or that no living triggerer runs, $2 at most.
SELECT dataset.uri, trigger.error, trigger.error_since
FROM dag_subscription AS s
JOIN trigger ON trigger.dataset = s.dataset AND trigger.kind = 'watch'
JOIN dataset ON dataset.id = s.dataset
LEFT JOIN triggerer ON triggerer.name = trigger.owner
WHERE s.dag = $1
  AND (trigger.error IS NOT NULL OR triggerer.seen_at IS NULL
       OR triggerer.seen_at < now() - interval '10 seconds')
ORDER BY dataset.uri
LIMIT $2;
