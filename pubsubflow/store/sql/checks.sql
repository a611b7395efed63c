-- Checks: events that are held, what checks have found, releases.

-- name: hold_events
-- Store events that are held.
INSERT INTO held_event (id, event_id, dataset, extra, partition, time, source, run, node, map_index,
                        ancestry, trace, held_at)
SELECT id, event_id, dataset, extra::jsonb, partition, time, source, run, node, map_index,
       ancestry::int[], trace, held_at
FROM unnest($1::bigint[], $2::uuid[], $3::int[], $4::text[], $5::text[], $6::timestamptz[],
            $7::text[], $8::bigint[], $9::int[], $10::int[], $11::text[], $12::text[],
            $13::timestamptz[])
  AS n (id, event_id, dataset, extra, partition, time, source, run, node, map_index, ancestry, trace,
        held_at);

-- name: begin_checks
-- Insert checks of events that have come: event, DAG, event id, dataset, whether it is blocking,
-- severity, run, run id.
INSERT INTO check_result (event, dag, event_id, dataset, blocking, holding, severity, run, run_id)
SELECT event, dag, event_id, dataset, blocking, blocking, severity, run, run_id
FROM unnest($1::bigint[], $2::int[], $3::uuid[], $4::int[], $5::boolean[], $6::text[], $7::bigint[],
            $8::uuid[])
  AS n (event, dag, event_id, dataset, blocking, severity, run, run_id)
ORDER BY event, dag
ON CONFLICT DO NOTHING;

-- name: lock_held_of_runs
-- Lock the events that runs $1 check and that are held, in order.
SELECT id FROM held_event
WHERE discarded_at IS NULL
  AND id IN (SELECT event FROM check_result WHERE run = ANY($1::bigint[]))
ORDER BY id
FOR UPDATE;

-- name: lock_held_events
-- Lock the events $1, by their public ids, that are held, in order.
SELECT id, event_id, dataset FROM held_event
WHERE discarded_at IS NULL AND event_id = ANY($1::uuid[])
ORDER BY id
FOR UPDATE;

-- name: find_dags_of_held_events
-- Return the DAGs that subscribe to the datasets of the events $1 that are held, and their checks.
SELECT s.dag
FROM held_event JOIN dag_subscription AS s ON s.dataset = held_event.dataset
WHERE held_event.event_id = ANY($1::uuid[])
UNION
SELECT dag FROM check_result WHERE event_id = ANY($1::uuid[]);

-- name: find_dags_of_checks
-- Return the DAGs that subscribe to a dataset of which a check among $1 holds one of its next 500
-- events.
SELECT DISTINCT s.dag
FROM unnest($1::int[]) AS requested (dag)
CROSS JOIN LATERAL (
    SELECT r.dataset FROM check_result AS r
    WHERE r.dag = requested.dag AND r.holding ORDER BY r.event LIMIT 500
) AS held
JOIN dag_subscription AS s ON s.dataset = held.dataset;

-- name: conclude_checks
-- Record how runs of checks have come out: run, outcome, severity, description, metadata, whether it
-- holds. A row that another run checks by now stays.
UPDATE check_result AS r SET
    outcome = n.outcome, severity = n.severity, description = n.description,
    metadata = n.metadata::jsonb, holding = r.holding AND n.holding, ended_at = now()
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::boolean[])
  AS n (run, outcome, severity, description, metadata, holding), dataset
WHERE r.run = n.run AND r.outcome = 'waiting' AND dataset.id = r.dataset
RETURNING r.dag, r.event_id, dataset.uri, r.run, r.run_id, r.outcome, r.severity, r.description,
          r.holding;

-- name: read_unheld_events
-- Return those of the events $1, which are locked, that no check holds, as `event_info` does.
SELECT held_event.id, held_event.event_id, dataset.uri, held_event.extra, held_event.partition,
       held_event.time, held_event.source, held_event.held_at AS recorded_at, held_event.ancestry,
       run.run_id, dag.dag_id, held_event.run, held_event.node, held_event.map_index, run.version,
       held_event.dataset, held_event.trace
FROM held_event
JOIN dataset ON dataset.id = held_event.dataset
LEFT JOIN run ON run.id = held_event.run
LEFT JOIN dag ON dag.id = run.dag
WHERE held_event.id = ANY($1::bigint[]) AND held_event.discarded_at IS NULL
  AND NOT EXISTS (SELECT FROM check_result AS r WHERE r.event = held_event.id AND r.holding)
ORDER BY held_event.id;

-- name: place_released_events
-- Remove held events that have got a position in the log: number, position.
WITH n AS (
    SELECT * FROM unnest($1::bigint[], $2::bigint[]) AS n (id, position)
), gone AS (
    DELETE FROM held_event USING n WHERE held_event.id = n.id
), moved AS (
    UPDATE run_event SET event = n.position FROM n WHERE run_event.event = n.id
)
UPDATE check_result SET position = n.position FROM n WHERE check_result.event = n.id;

-- name: waive_checks
-- Have checks hold the events $1 no longer; $2: who released them, $3: a note.
UPDATE check_result SET holding = false, released_by = $2, note = $3
WHERE event = ANY($1::bigint[]) AND holding
RETURNING dag;

-- name: discard_held_events
-- Discard the events $1, which are locked; $2: by whom, $3: a note.
WITH waived AS (
    UPDATE check_result SET holding = false WHERE event = ANY($1::bigint[]) AND holding
    RETURNING dag
), discarded AS (
    UPDATE held_event SET discarded_at = now(), discarded_by = $2, note = $3
    WHERE id = ANY($1::bigint[])
)
SELECT DISTINCT dag FROM waived ORDER BY dag;

-- name: remove_checks
-- Have check $1, which does not exist any more or is not blocking any more, hold its next $2 events
-- no longer, with the note $3, and return these.
WITH next AS (
    SELECT r.event FROM check_result AS r JOIN held_event AS h ON h.id = r.event
    WHERE r.dag = $1 AND r.holding
    ORDER BY r.event LIMIT $2
    FOR UPDATE OF h
)
UPDATE check_result AS r SET
    holding = false, note = $3,
    outcome = CASE WHEN r.outcome = 'waiting' THEN 'removed' ELSE r.outcome END,
    ended_at = coalesce(r.ended_at, now())
FROM next WHERE r.event = next.event AND r.dag = $1
RETURNING r.event;

-- name: lock_unstarted_checks
-- Lock those of the next $2 events that check $1 has not begun to check that are held, in order: none
-- is released before the check has begun.
SELECT id FROM held_event
WHERE id IN (
    SELECT event FROM check_result WHERE dag = $1 AND outcome = 'waiting' AND run IS NULL
    ORDER BY event LIMIT $2
)
ORDER BY id
FOR UPDATE;

-- name: list_unstarted_checks
-- Return the next $2 events that check $1 has not begun to check, with their tries, as `event_info`
-- does; one that was pruned has no time.
SELECT coalesce(r.position, r.event) AS id, r.event AS number, r.tries, r.event_id, dataset.uri,
       info.extra, info.partition, info.time, info.source, info.recorded_at, info.ancestry,
       run.run_id, dag.dag_id, info.node, run.version, r.dataset, info.trace
FROM (
    SELECT * FROM check_result WHERE dag = $1 AND outcome = 'waiting' AND run IS NULL
    ORDER BY event LIMIT $2
) AS r
LEFT JOIN LATERAL (
    SELECT h.extra, h.partition, h.time, h.source, h.held_at AS recorded_at, h.ancestry, h.run,
           h.node, h.trace
    FROM held_event AS h WHERE h.id = r.event
    UNION ALL
    SELECT e.extra, e.partition, e.time, e.source, e.recorded_at, e.ancestry, e.run, e.node, e.trace
    FROM event AS e WHERE e.id = coalesce(r.position, r.event)
) AS info ON true
JOIN dataset ON dataset.id = r.dataset
LEFT JOIN run ON run.id = info.run
LEFT JOIN dag ON dag.id = run.dag
ORDER BY r.event;

-- name: forget_checks
-- End the checks $2 of check $1 whose events were pruned before they began.
UPDATE check_result SET outcome = 'removed', note = 'the event was pruned', ended_at = now()
WHERE dag = $1 AND event = ANY($2::bigint[]) AND outcome = 'waiting' AND run IS NULL;

-- name: start_checks
-- Record the runs that begin to check events: event, DAG, run, run id.
UPDATE check_result AS r SET run = n.run, run_id = n.run_id
FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::uuid[]) AS n (event, dag, run, run_id)
WHERE r.event = n.event AND r.dag = n.dag;

-- name: repeat_checks
-- Begin checks of the events $1 anew, of all checks that hold them or of check $2; they get their
-- runs then. One that waits already goes on.
UPDATE check_result AS r SET
    outcome = 'waiting', description = '', metadata = '{}', tries = tries + 1, run = NULL,
    run_id = NULL, ended_at = NULL, holding = r.blocking
FROM dag
WHERE r.event = ANY($1::bigint[]) AND dag.id = r.dag AND dag.present AND r.outcome <> 'waiting'
  AND CASE WHEN $2::text IS NULL THEN r.holding ELSE dag.dag_id = $2 END
RETURNING r.event, r.dag;

-- name: list_ended_checks
-- Return, of the next $2 runs of check $1 without a conclusion, those that have ended or are gone.
SELECT r.run, coalesce(run.state, 'gone') AS state
FROM (
    SELECT run, event FROM check_result
    WHERE dag = $1 AND outcome = 'waiting' AND run IS NOT NULL
    ORDER BY event LIMIT $2
) AS r LEFT JOIN run ON run.id = r.run
WHERE run.id IS NULL OR run.state NOT IN ('queued', 'running')
ORDER BY r.event;

-- name: list_open_checks
-- Return the checks that have something to do or hold something, and those that are gone and have
-- left an alert.
WITH RECURSIVE open AS (  -- the next DAG each time, however many rows it has
    (SELECT dag FROM check_result WHERE holding OR outcome = 'waiting' ORDER BY dag LIMIT 1)
    UNION ALL
    SELECT (SELECT r.dag FROM check_result AS r
            WHERE (r.holding OR r.outcome = 'waiting') AND r.dag > open.dag ORDER BY r.dag LIMIT 1)
    FROM open WHERE open.dag IS NOT NULL
)
SELECT dag AS id FROM open WHERE dag IS NOT NULL
UNION
SELECT dag.id FROM alert JOIN dag ON dag.dag_id = alert.dag_id
WHERE alert.kind = 'check' AND alert.ended_at IS NULL AND NOT dag.present;

-- name: open_check_alerts
-- Open alerts for checks that have failed: DAG, run, dataset, text.
INSERT INTO alert (kind, subject, text, dag_id, run, dataset, since)
SELECT DISTINCT ON (dag.dag_id) 'check', substring(dag.dag_id FROM 7), n.text, dag.dag_id, n.run,
       n.dataset, now()
FROM unnest($1::int[], $2::bigint[], $3::text[], $4::text[]) AS n (dag, run, dataset, text)
JOIN dag ON dag.id = n.dag
ORDER BY dag.dag_id, n.run
ON CONFLICT DO NOTHING;

-- name: end_check_alerts
-- End the alerts of checks $1 that hold no event after a failure any more; return them.
UPDATE alert SET ended_at = now(), ending = $2
FROM dag
WHERE dag.id = ANY($1::int[]) AND alert.kind = 'check' AND alert.ended_at IS NULL
  AND alert.subject = substring(dag.dag_id FROM 7)
  AND NOT EXISTS (SELECT FROM check_result AS r
                  WHERE r.dag = dag.id AND r.holding AND r.outcome IN ('failed', 'error'))
RETURNING alert.id;

-- name: page_checks
-- Return the checks after the name $1, with how many events each holds, up to 1,001, and its newest
-- result.
SELECT dag.id, dag.dag_id, dag.file, s.version, s.paused, s.missing_since IS NOT NULL AS missing,
       (SELECT count(*) FROM (
            SELECT FROM check_result AS r WHERE r.dag = dag.id AND r.holding LIMIT 1001
        ) AS holding) AS held,
       last.outcome, last.severity, last.event_id, last.ended_at
FROM dag
JOIN dag_state AS s ON s.dag = dag.id
LEFT JOIN LATERAL (
    SELECT r.outcome, r.severity, r.event_id, r.ended_at FROM check_result AS r
    WHERE r.dag = dag.id ORDER BY r.id DESC LIMIT 1
) AS last ON true
WHERE dag.dag_id > $1 AND dag.present AND dag.dag_id LIKE 'check:%'
  AND ($3::text IS NULL OR dag.dag_id = $3)
ORDER BY dag.dag_id
LIMIT $2;

-- name: page_check_results
-- Return results of checks below $1, newest first: of check $3, dataset $4, event $5, outcome $6.
SELECT r.id, r.event_id, dag.dag_id, dataset.uri, r.blocking, r.holding, r.outcome, r.severity,
       r.description, r.metadata, r.tries, r.run_id, r.created_at, r.ended_at,
       r.position IS NOT NULL AS released, r.released_by, r.note
FROM check_result AS r
JOIN dag ON dag.id = r.dag
JOIN dataset ON dataset.id = r.dataset
WHERE r.id < $1
  AND ($3::int IS NULL OR r.dag = $3)
  AND ($4::int IS NULL OR r.dataset = $4)
  AND ($5::uuid IS NULL OR r.event_id = $5)
  AND ($6::text IS NULL OR r.outcome = $6)
ORDER BY r.id DESC
LIMIT $2;

-- name: page_held_events
-- Return numbers of events that are held, below $1, newest first: of dataset $3, by check $4.
SELECT h.id, h.event_id FROM held_event AS h
WHERE h.id < $1 AND h.discarded_at IS NULL
  AND ($3::int IS NULL OR h.dataset = $3)
  AND ($4::int IS NULL OR EXISTS (
      SELECT FROM check_result AS r WHERE r.event = h.id AND r.dag = $4 AND r.holding))
ORDER BY h.id DESC
LIMIT $2;

-- name: read_holds
-- Return which checks hold the events $1, and why.
SELECT r.event, dag.dag_id, r.outcome, r.severity, r.description, r.run_id, r.tries
FROM check_result AS r JOIN dag ON dag.id = r.dag
WHERE r.event = ANY($1::bigint[]) AND r.holding
ORDER BY r.event, dag.dag_id;

-- name: find_next_held
-- Return the first $1 held events, oldest first: of dataset $2, by check $3, one that has ended if
-- $4.
SELECT h.event_id FROM held_event AS h
WHERE h.discarded_at IS NULL
  AND ($2::int IS NULL OR h.dataset = $2)
  AND ($3::int IS NULL OR EXISTS (
      SELECT FROM check_result AS r WHERE r.event = h.id AND r.dag = $3 AND r.holding))
  AND (NOT $4 OR EXISTS (
      SELECT FROM check_result AS r
      WHERE r.event = h.id AND r.holding AND r.outcome IN ('failed', 'error')))
ORDER BY h.id
LIMIT $1;

-- name: count_held_events_of_dag
-- Count the events of the datasets of DAG $1 that checks hold, up to 1,000, and return the first.
SELECT count(*) AS events, min(held.id) AS first
FROM (
    SELECT h.id FROM held_event AS h
    WHERE h.dataset IN (SELECT s.dataset FROM dag_subscription AS s WHERE s.dag = $1)
      AND h.discarded_at IS NULL
    ORDER BY h.id LIMIT 1000
) AS held;
