-- Alerts: opened, acknowledged, ended and announced.

-- name: open_deadline_alerts
-- Open alerts for deadlines of runs that have not ended, and leave the calls that follow: run,
-- number of the deadline, what passed, names of callbacks by line.
WITH passed AS (
    SELECT n.number, n.text, n.names, run.id, run.run_id, run.source, dag.dag_id
    FROM unnest($1::bigint[], $2::int[], $3::text[], $4::text[]) AS n (run, number, text, names)
    JOIN run ON run.id = n.run
    JOIN dag ON dag.id = run.dag
    WHERE run.state IN ('queued', 'running')
), opened AS (
    INSERT INTO alert (kind, subject, key, text, dag_id, run, since)
    SELECT 'deadline', dag_id, run_id || ':' || number,
           'run ' || run_id || ' of DAG ' || dag_id || ' has ' || text, dag_id, id, now()
    FROM passed ORDER BY id, number
    ON CONFLICT DO NOTHING
    RETURNING id, key
)
INSERT INTO callback (kind, number, position, name, dag_id, run, outcome, source, alert)
SELECT 'deadline', passed.number, called.position - 1, called.name, passed.dag_id, passed.id,
       'late', passed.source, opened.id
FROM opened
JOIN passed ON passed.run_id || ':' || passed.number = opened.key
CROSS JOIN regexp_split_to_table(passed.names, E'\n') WITH ORDINALITY AS called (name, position)
WHERE called.name <> '';

-- name: end_alerts_of_runs
-- End the alerts of runs that have ended.
UPDATE alert SET ended_at = now(), ending = 'the run has ended'
WHERE run = ANY($1::bigint[]) AND kind = 'deadline' AND ended_at IS NULL;

-- name: end_left_alerts
-- End alerts of runs that have ended in a queue or under an older daemon, or are gone.
UPDATE alert SET ended_at = now(), ending = 'the run has ended'
WHERE ended_at IS NULL AND kind = 'deadline'
  AND NOT EXISTS (SELECT FROM run WHERE run.id = alert.run AND run.state IN ('queued', 'running'))
RETURNING id;

-- name: list_unannounced_alerts
-- Return alerts of which an opening or an end has no event yet; `quiet` ones follow from an alert
-- themselves: an event of them could set off the same DAG for ever.
SELECT alert.id, alert.kind, alert.subject, alert.text, alert.dag_id, run.run_id, alert.dataset,
       alert.since, alert.opened_at, alert.ended_at, alert.ending, alert.announced,
       EXISTS (
           SELECT FROM run_event
           JOIN event ON event.id = run_event.event
           JOIN dataset ON dataset.id = event.dataset
           WHERE run_event.run = alert.run AND (
               dataset.uri LIKE 'pubsubflow://alerts/%'
               OR event.ancestry && ARRAY(
                   SELECT d.dag FROM dag_subscription AS d
                   JOIN dataset AS announced ON announced.id = d.dataset
                   WHERE announced.uri LIKE 'pubsubflow://alerts/%'
               )
           )
       ) OR EXISTS (  -- of a check: its event is not in the log
           SELECT FROM check_result AS r JOIN held_event ON held_event.id = r.event
           WHERE r.run = alert.run AND held_event.ancestry && ARRAY(
               SELECT d.dag FROM dag_subscription AS d
               JOIN dataset AS announced ON announced.id = d.dataset
               WHERE announced.uri LIKE 'pubsubflow://alerts/%'
           )
       ) AS quiet
FROM alert LEFT JOIN run ON run.id = alert.run
WHERE alert.announced = 0 OR alert.announced = 1 AND alert.ended_at IS NOT NULL
ORDER BY alert.id
LIMIT $1;

-- name: mark_alerts_announced
-- Note how far alerts are announced: 1 for the opening, 2 for the end.
UPDATE alert SET announced = n.announced
FROM unnest($1::bigint[], $2::int[]) AS n (id, announced)
WHERE alert.id = n.id AND alert.announced < n.announced;

-- name: list_alerts
-- Return alerts before id $1, the newest first: of a state, of a kind, about a subject.
SELECT alert.id, alert.kind, alert.subject, alert.text, alert.dag_id, run.run_id, alert.dataset,
       alert.since, alert.opened_at, alert.acknowledged_at, alert.acknowledged_by, alert.ended_at,
       alert.ending
FROM alert LEFT JOIN run ON run.id = alert.run
WHERE alert.id < $1
  AND ($3::text IS NULL
       OR $3 = CASE WHEN alert.ended_at IS NOT NULL THEN 'ended'
                    WHEN alert.acknowledged_at IS NOT NULL THEN 'acknowledged' ELSE 'open' END)
  AND ($4::text IS NULL OR alert.kind = $4)
  AND ($5::text IS NULL OR alert.subject = $5)
ORDER BY alert.id DESC
LIMIT $2;

-- name: read_alert
-- Return an alert.
SELECT alert.id, alert.kind, alert.subject, alert.text, alert.dag_id, run.run_id, alert.dataset,
       alert.since, alert.opened_at, alert.acknowledged_at, alert.acknowledged_by, alert.ended_at,
       alert.ending
FROM alert LEFT JOIN run ON run.id = alert.run
WHERE alert.id = $1;

-- name: list_callbacks_of_alert
-- Return the calls about an alert.
SELECT id, kind, name, attempt, state, tries, error, output, created_at, ended_at
FROM callback WHERE alert = $1
ORDER BY id
LIMIT $2;

-- name: acknowledge_alert
-- Note who has seen an open alert; the first one counts.
UPDATE alert SET acknowledged_at = now(), acknowledged_by = $2
WHERE id = $1 AND ended_at IS NULL AND acknowledged_at IS NULL;

-- name: delete_old_alerts
-- Delete up to $2 alerts that ended $1 days ago or earlier, and are announced.
DELETE FROM alert WHERE id IN (
    SELECT id FROM alert
    WHERE ended_at < now() - make_interval(days => $1) AND announced = 2
    LIMIT $2
);
