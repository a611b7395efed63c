-- What became of events, and what could not be done.

-- name: read_fates
-- Return what became of events for whoever looked at them.
SELECT run_event.event, dag.dag_id, 'consumed' AS fate, run_event.place, run.partition AS cell,
       CASE WHEN run.state <> 'queued' THEN NULL
            WHEN line.run IS NULL THEN 'the run still collects events'
            ELSE 'the run waits in line, as its DAG has all the active runs it may have'
       END AS reason,
       run.run_id, run.state, run.created_at AS at
FROM run_event
JOIN run ON run.id = run_event.run
JOIN dag ON dag.id = run.dag
LEFT JOIN run_queue AS line ON line.run = run.id
WHERE run_event.event = ANY($1::bigint[])
UNION ALL
SELECT pending.event, dag.dag_id, 'pending', pending.place, pending.cell, NULL, NULL, NULL, NULL
FROM pending JOIN dag ON dag.id = pending.dag
WHERE pending.event = ANY($1::bigint[])
UNION ALL
SELECT f.event, dag.dag_id, f.fate, f.place, f.cell, f.reason, NULL, NULL, f.at
FROM event_fate AS f JOIN dag ON dag.id = f.dag
WHERE f.event = ANY($1::bigint[])
ORDER BY event, dag_id, place, at;

-- name: read_subscribers
-- Return who subscribes to the datasets of events, and from which event on it has not looked yet.
SELECT event.id AS event, dag.dag_id, gate.paused, gate.since
FROM event
JOIN subscription AS s ON s.dataset = event.dataset
JOIN dag ON dag.id = s.dag
JOIN gate ON gate.dag = s.dag
WHERE event.id = ANY($1::bigint[])
ORDER BY event.id, dag.dag_id;

-- name: list_consumers
-- Return the DAGs that subscribe to a dataset.
SELECT dag.dag_id
FROM dataset
JOIN subscription AS s ON s.dataset = dataset.id
JOIN dag ON dag.id = s.dag
WHERE dataset.uri = $1
ORDER BY dag.dag_id;

-- name: list_dead_letters
-- Return a page of dead letters, newest first, before the id $1; also those sent again if $3.
SELECT letter.id, letter.kind, letter.subject, dag.dag_id, letter.reason,
       octet_length(letter.payload) AS size, letter.created_at, letter.resent_at
FROM dead_letter AS letter LEFT JOIN dag ON dag.id = letter.dag
WHERE letter.id < $1 AND ($3 OR letter.resent_at IS NULL)
ORDER BY letter.id DESC
LIMIT $2;

-- name: read_dead_letter
-- Return a dead letter.
SELECT letter.id, letter.kind, letter.subject, dag.dag_id, letter.reason,
       octet_length(letter.payload) AS size, letter.created_at, letter.resent_at, letter.payload
FROM dead_letter AS letter LEFT JOIN dag ON dag.id = letter.dag
WHERE letter.id = $1;

-- name: find_newer_letter
-- Return the newest dead letter after $1 that is about the same DAG.
SELECT id, reason FROM dead_letter
WHERE dag = (SELECT dag FROM dead_letter WHERE id = $1) AND id > $1
ORDER BY id DESC LIMIT 1;
