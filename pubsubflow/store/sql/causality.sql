-- Causality, step by step: from runs to the events that they emitted and the runs that they started,
-- from events to the runs that consumed them, and back. Each statement takes a step for all nodes at
-- once, bounded for each of them. Ids are sorted as sums, so that no index is walked in their order.

-- name: list_emitted_events
-- Return the events that each of the runs $1 emitted, held ones too, in order: at most $3 after the
-- first $2; only those of node $4 and of its instance $5, if given.
WITH held AS MATERIALIZED (
    -- Few events are held, and no index has their runs: they are looked through once.
    SELECT h.run, h.id FROM held_event AS h
    WHERE h.run = ANY($1::bigint[]) AND ($4::int IS NULL OR h.node = $4)
      AND ($5::int IS NULL OR h.map_index = $5)
)
SELECT requested.run, emitted.id
FROM unnest($1::bigint[]) AS requested (run)
CROSS JOIN LATERAL (
    (SELECT event.id FROM event
     WHERE event.run = requested.run AND ($4::int IS NULL OR event.node = $4)
       AND ($5::int IS NULL OR event.map_index = $5)
     ORDER BY event.id + 0 LIMIT $2::int + $3::int)
    UNION ALL
    (SELECT held.id FROM held WHERE held.run = requested.run
     ORDER BY held.id LIMIT $2::int + $3::int)
    ORDER BY 1 OFFSET $2::int LIMIT $3::int
) AS emitted
ORDER BY requested.run, emitted.id;

-- name: count_emitted_events
-- Count the events that each of the runs $1 emitted, up to $2; those of node $3 and of its instance
-- $4, if given.
WITH held AS MATERIALIZED (
    SELECT h.run FROM held_event AS h
    WHERE h.run = ANY($1::bigint[]) AND ($3::int IS NULL OR h.node = $3)
      AND ($4::int IS NULL OR h.map_index = $4)
)
SELECT requested.run, emitted.number
FROM unnest($1::bigint[]) AS requested (run)
CROSS JOIN LATERAL (
    SELECT count(*) AS number FROM (
        (SELECT FROM event
         WHERE event.run = requested.run AND ($3::int IS NULL OR event.node = $3)
           AND ($4::int IS NULL OR event.map_index = $4)
         LIMIT $2)
        UNION ALL
        (SELECT FROM held WHERE held.run = requested.run LIMIT $2)
    ) AS found
) AS emitted;

-- name: list_started_runs
-- Return the runs that tasks of the runs $2, with the ids $1, started, in order: at most $4 after the
-- first $3; only those whose cause begins with $5.
SELECT requested.run AS starter, started.id AS run
FROM unnest($1::text[], $2::bigint[]) AS requested (run_id, run)
CROSS JOIN LATERAL (
    SELECT run.id FROM run
    WHERE right(run.cause, 36) = requested.run_id AND run.kind = 'manual'
      AND starts_with(run.cause, 'started by task ') AND starts_with(run.cause, $5)
    ORDER BY run.id + 0 OFFSET $3::int LIMIT $4::int
) AS started
ORDER BY starter, started.id;

-- name: count_started_runs
-- Count the runs that tasks of the runs $2, with the ids $1, started, up to $3; only those whose
-- cause begins with $4.
SELECT requested.run, started.number
FROM unnest($1::text[], $2::bigint[]) AS requested (run_id, run)
CROSS JOIN LATERAL (
    SELECT count(*) AS number FROM (
        SELECT FROM run
        WHERE right(run.cause, 36) = requested.run_id AND run.kind = 'manual'
          AND starts_with(run.cause, 'started by task ') AND starts_with(run.cause, $4)
        LIMIT $3
    ) AS found
) AS started;

-- name: list_consuming_runs
-- Return the runs that consumed each of the events $1, those that failed first, then those that have
-- not ended: of the first $4 at most $3 after the first $2.
SELECT requested.event, consumer.id AS run
FROM unnest($1::bigint[]) AS requested (event)
CROSS JOIN LATERAL (
    SELECT run.id
    FROM (
        SELECT DISTINCT run_event.run FROM run_event WHERE run_event.event = requested.event
        LIMIT $4
    ) AS found
    JOIN run ON run.id = found.run
    WHERE run.kind <> 'check'
    ORDER BY CASE WHEN run.state = 'failed' THEN 0 WHEN run.state IN ('running', 'queued') THEN 1
                  ELSE 2 END, run.id
    OFFSET $2::int LIMIT $3::int
) AS consumer;

-- name: count_consuming_runs
-- Count the runs that consumed each of the events $1 by their states, of the first $2.
SELECT requested.event, run.state, count(*) AS number
FROM unnest($1::bigint[]) AS requested (event)
CROSS JOIN LATERAL (
    SELECT DISTINCT run_event.run FROM run_event WHERE run_event.event = requested.event LIMIT $2
) AS found
JOIN run ON run.id = found.run
WHERE run.kind <> 'check'
GROUP BY requested.event, run.state;

-- name: list_consumed_of_runs
-- Return the events that each of the runs $1 consumed, the newest first: at most $3 after the first
-- $2.
SELECT requested.run, consumed.event
FROM unnest($1::bigint[]) AS requested (run)
CROSS JOIN LATERAL (
    SELECT DISTINCT run_event.event FROM run_event WHERE run_event.run = requested.run
    ORDER BY run_event.event DESC OFFSET $2::int LIMIT $3::int
) AS consumed;

-- name: count_consumed_of_runs
-- Count the events that each of the runs $1 consumed, up to $2.
SELECT requested.run, consumed.number
FROM unnest($1::bigint[]) AS requested (run)
CROSS JOIN LATERAL (
    SELECT count(*) AS number FROM (
        SELECT DISTINCT run_event.event FROM run_event WHERE run_event.run = requested.run LIMIT $2
    ) AS found
) AS consumed;

-- name: read_traced_events
-- Return events with the tasks that emitted them, in order, without their extras.
SELECT found.id, found.event_id, dataset.uri, found.partition, found.time, found.recorded_at,
       found.source, found.run, found.node, found.map_index, run.run_id, run.version, dag.dag_id,
       found.held, found.discarded_by, found.note
FROM unnest($1::bigint[]) AS requested (id)
JOIN LATERAL (
    SELECT event.id, event.event_id, event.dataset, event.partition, event.time,
           event.recorded_at, event.source, event.run, event.node, event.map_index,
           false AS held, NULL::text AS discarded_by, NULL::text AS note
    FROM event WHERE event.id = requested.id
    UNION ALL
    SELECT h.id, h.event_id, h.dataset, h.partition, h.time, h.held_at, h.source, h.run, h.node,
           h.map_index, true, h.discarded_by, h.note
    FROM held_event AS h WHERE h.id = requested.id
) AS found ON true
JOIN dataset ON dataset.id = found.dataset
LEFT JOIN run ON run.id = found.run
LEFT JOIN dag ON dag.id = run.dag
ORDER BY found.id;

-- name: read_traced_tasks
-- Return the task instances (run, node, map index) $1 to $3.
SELECT wanted.run, wanted.node, wanted.map_index, instance.attempt, instance.state,
       instance.queued_at, instance.started_at, instance.ended_at
FROM unnest($1::bigint[], $2::int[], $3::int[]) AS wanted (run, node, map_index)
CROSS JOIN LATERAL (
    SELECT task.attempt, task.state, task.queued_at, task.started_at, task.ended_at FROM task
    WHERE task.run = wanted.run AND task.node = wanted.node AND task.map_index = wanted.map_index
    UNION ALL
    SELECT t.attempt, t.state,
           CASE WHEN t.chained THEN t.started_at ELSE least(t.queued_at, t.started_at) END,
           t.started_at, NULL
    FROM task_live AS t
    WHERE t.run = wanted.run AND t.node = wanted.node AND t.map_index = wanted.map_index
) AS instance;

-- name: read_traced_outcomes
-- Return why DAGs have not consumed each of the events $1: of each outcome the first $3 DAGs of $2,
-- and how many of these there are.
SELECT requested.event, other.outcome, other.dag_id, other.reason, other.total
FROM unnest($1::bigint[]) AS requested (event)
JOIN event ON event.id = requested.event
CROSS JOIN LATERAL (
    SELECT known.outcome, dag.dag_id, known.reason,
           count(*) OVER (PARTITION BY known.outcome) AS total,
           row_number() OVER (PARTITION BY known.outcome ORDER BY dag.dag_id) AS number
    FROM (
        (SELECT p.dag, 'pending' AS outcome, NULL AS reason
         FROM pending_event AS p WHERE p.event = event.id LIMIT $2)
        UNION ALL
        (SELECT o.dag, o.outcome, o.reason
         FROM event_outcome AS o WHERE o.event = event.id LIMIT $2)
        UNION ALL
        -- A subscribed DAG without an outcome has not processed the event yet, or never will.
        (SELECT s.dag,
                CASE WHEN dag_state.catch_up_from <= event.id THEN 'pending' ELSE 'unseen' END,
                CASE WHEN dag_state.catch_up_from IS NULL OR dag_state.catch_up_from > event.id
                     THEN NULL
                     WHEN dag_state.paused THEN 'the DAG is paused'
                     WHEN dag_state.missing_since IS NOT NULL
                     THEN 'the DAG is not in the DAGs folder at the moment'
                     ELSE 'the DAG is catching up with past events' END
         FROM dag_subscription AS s
         JOIN dag_state ON dag_state.dag = s.dag
         LEFT JOIN (
             SELECT run.dag FROM run_event JOIN run ON run.id = run_event.run
             WHERE run_event.event = event.id
             UNION
             SELECT p.dag FROM pending_event AS p WHERE p.event = event.id
             UNION
             SELECT o.dag FROM event_outcome AS o WHERE o.event = event.id
         ) AS decided ON decided.dag = s.dag
         WHERE s.dataset = event.dataset AND decided.dag IS NULL
         LIMIT $2)
    ) AS known
    JOIN dag ON dag.id = known.dag
    WHERE dag.dag_id NOT LIKE 'check:%'
) AS other
WHERE other.number <= $3
ORDER BY requested.event, other.outcome, other.dag_id;
