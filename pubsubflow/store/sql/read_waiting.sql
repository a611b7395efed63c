-- What people ask about why no run starts.

-- name: read_standing_gate
-- Return a DAG with its gate and the error of its file.
SELECT dag.dag_id, dag.present, gate.version, gate.paused, gate.active, gate.queued, gate.since,
       dag_file.error
FROM dag
JOIN gate ON gate.dag = dag.id
LEFT JOIN dag_file ON dag_file.file = dag.file
WHERE dag.id = $1;

-- name: read_next_ticks
-- Return when the times of a DAG come next, by slot.
SELECT node AS slot, due_at FROM timer WHERE kind = 'tick' AND dag = $1;

-- name: list_open_cells
-- Return the partitions of a DAG in which something is pending or forming, $2 at most.
SELECT key, state FROM cell WHERE dag = $1 AND open ORDER BY key LIMIT $2;

-- name: read_last_events
-- Return the newest event of the datasets of places: place, URI, and the expression of a pattern.
SELECT asked.place, last.event_id, last.recorded_at
FROM unnest($2::int[], $3::text[], $4::text[]) AS asked (place, uri, expression)
CROSS JOIN LATERAL (
    SELECT newest.id, newest.event_id, newest.recorded_at
    FROM subscription AS s
    JOIN dataset ON dataset.id = s.dataset
    CROSS JOIN LATERAL (
        SELECT id, event_id, recorded_at FROM event
        WHERE event.dataset = dataset.id ORDER BY event.id DESC LIMIT 1
    ) AS newest
    WHERE s.dag = $1
      AND (dataset.uri = asked.uri AND asked.expression IS NULL OR dataset.uri ~ asked.expression)
    ORDER BY newest.id DESC
    LIMIT 1
) AS last;

-- name: count_held_back
-- Count the events from $2 on that a DAG has not looked at, $3 at most.
SELECT count(*) AS events, min(recorded_at) AS since
FROM (
    SELECT recorded_at FROM event
    WHERE event.dataset IN (SELECT dataset FROM subscription WHERE dag = $1) AND event.id >= $2
    ORDER BY event.id LIMIT $3
) AS held;

-- name: count_recent_fates
-- Count what did not count for a DAG in the last day, among its latest 10,000 such events.
SELECT place, fate, count(*) AS events, max(event) AS last,
       (array_agg(reason ORDER BY event DESC))[1] AS reason
FROM (
    SELECT * FROM event_fate WHERE dag = $1 ORDER BY event DESC LIMIT 10000
) AS recent
WHERE at > now() - interval '1 day' AND ($2::text IS NULL OR cell = $2)
GROUP BY place, fate;

-- name: count_too_old
-- Count what is pending in the places $3 of a cell from before the times $4, up to 1,000 each.
SELECT asked.place, (
    SELECT count(*) FROM (
        SELECT FROM pending JOIN event ON event.id = pending.event
        WHERE pending.dag = $1 AND pending.cell = $2 AND pending.place = asked.place
          AND least(event.time, event.recorded_at) < asked.before
        LIMIT 1000
    ) AS old
) AS events
FROM unnest($3::smallint[], $4::timestamptz[]) AS asked (place, before);

-- name: find_last_run
-- Return the newest run of a DAG, of the partition $2 if that is given: among the latest 10,000.
SELECT id FROM (
    SELECT id, run_id, partition FROM run WHERE dag = $1 ORDER BY run_id DESC LIMIT 10000
) AS recent
WHERE $2::text IS NULL OR partition = $2
ORDER BY run_id DESC
LIMIT 1;

-- name: name_run
-- Return what outsiders call a run.
SELECT run_id FROM run WHERE id = $1;
