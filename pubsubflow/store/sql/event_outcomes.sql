-- Outcomes of events, and the DAGs that subscribe to their datasets.

-- name: read_event_outcomes
-- Return the outcomes of events for each DAG and input: consumed, pending, or as recorded; and for
-- each check what it has found.
SELECT run_event.event, dag.dag_id, 'consumed' AS outcome, run_event.input,
       run.partition AS partition_key,
       CASE WHEN run.state <> 'queued' THEN NULL
            WHEN q.run IS NULL THEN 'the run still collects events'
            ELSE 'the run is queued: max_active_runs of its DAG or a limit of its tags is reached'
       END AS reason,
       run.run_id, run.state, run.created_at AS at
FROM run_event
JOIN run ON run.id = run_event.run
JOIN dag ON dag.id = run.dag
LEFT JOIN run_queue AS q ON q.run = run.id
WHERE run_event.event = ANY($1::bigint[]) AND run.kind <> 'check'
UNION ALL
SELECT p.event, dag.dag_id, 'pending', p.input, p.partition_key, NULL, NULL, NULL, NULL
FROM pending_event AS p JOIN dag ON dag.id = p.dag
WHERE p.event = ANY($1::bigint[])
UNION ALL
SELECT o.event, dag.dag_id, o.outcome, o.input, o.partition_key, o.reason, NULL, NULL, o.at
FROM unnest($1::bigint[]) AS requested (event)
JOIN event_outcome AS o ON o.event = requested.event
JOIN dag ON dag.id = o.dag
UNION ALL
SELECT requested.event, dag.dag_id, r.outcome, 0, NULL,
       concat_ws('; ', nullif(r.description, ''),
                 CASE WHEN r.released_by IS NOT NULL THEN 'released by ' || r.released_by END,
                 nullif(r.note, '')),
       r.run_id, NULL, r.ended_at
FROM unnest($1::bigint[]) AS requested (event)
CROSS JOIN LATERAL (
    SELECT event_id FROM event WHERE event.id = requested.event
    UNION ALL
    SELECT event_id FROM held_event WHERE held_event.id = requested.event
) AS known
JOIN check_result AS r ON r.event_id = known.event_id
JOIN dag ON dag.id = r.dag
ORDER BY event, dag_id, input, at;

-- name: read_subscribed_dags
-- Return the DAGs subscribed to the datasets of events, and from which position each still has to
-- catch up.
SELECT event.id AS event, dag.dag_id, dag_state.paused, dag_state.catch_up_from,
       dag_state.missing_since IS NOT NULL AS missing,
       -- Managers carry the clock on by themselves, a little beside it. An event that nothing saw
       -- within this second cannot have met the DAG.
       coalesce(event.recorded_at >= dag.retired_at - interval '1 second'
         AND event.recorded_at < dag.returned_at + interval '1 second', false) AS absent,
       -- Runs were removed, and the oldest that is kept is younger than the event, or there is none.
       dag.created_at <= event.recorded_at
         AND EXISTS (SELECT FROM slice WHERE series = 'run' AND number > 0)
         AND coalesce((SELECT run.created_at FROM run WHERE run.dag = s.dag
                       ORDER BY run.run_id LIMIT 1) > event.recorded_at, true) AS perhaps_pruned
FROM unnest($1::bigint[]) AS requested (id)
JOIN event ON event.id = requested.id
JOIN dag_subscription AS s ON s.dataset = event.dataset
JOIN dag ON dag.id = s.dag
JOIN dag_state ON dag_state.dag = s.dag
WHERE dag.dag_id NOT LIKE 'check:%'
ORDER BY event.id, dag.dag_id;

-- name: list_subscribed_dags
-- Return the DAGs that subscribe to a dataset.
SELECT dag.dag_id
FROM dataset
JOIN dag_subscription AS s ON s.dataset = dataset.id
JOIN dag ON dag.id = s.dag
WHERE dataset.uri = $1 AND dag.dag_id NOT LIKE 'check:%'
ORDER BY dag.dag_id;

-- name: list_dags_of_held_events
-- Return the DAGs that get the events $1, which checks hold, when they are released.
SELECT h.id AS event, dag.dag_id
FROM unnest($1::bigint[]) AS requested (id)
JOIN held_event AS h ON h.id = requested.id
JOIN dag_subscription AS s ON s.dataset = h.dataset
JOIN dag ON dag.id = s.dag
WHERE dag.dag_id NOT LIKE 'check:%'
ORDER BY h.id, dag.dag_id;
