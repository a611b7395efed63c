-- Statistics for monitoring. They read only tables of unfinished work, or with a row per DAG or
-- process, and at most $1 rows of each, however long the history is.

-- name: read_statistics
-- Return (subject, label, count, age of the oldest in seconds) of all unfinished work.
SELECT 'tasks' AS subject, state AS label, count(*) AS number,
       extract(epoch FROM now() - min(queued_at))::float8 AS oldest_seconds
FROM (SELECT state, queued_at FROM task_live LIMIT $1) AS live
GROUP BY state
UNION ALL
SELECT 'waits', kind, count(*), extract(epoch FROM now() - min(created_at))::float8
FROM (SELECT kind, created_at FROM trigger LIMIT $1) AS waits
GROUP BY kind
UNION ALL
SELECT 'timers', '', count(*), extract(epoch FROM now() - min(due_at))::float8
FROM (SELECT due_at FROM timer WHERE due_at < now() AND kind <> 'held_tick'
      ORDER BY due_at LIMIT $1) AS due
UNION ALL
SELECT 'alerts', kind, count(*), extract(epoch FROM now() - min(opened_at))::float8
FROM (SELECT kind, opened_at FROM alert WHERE ended_at IS NULL LIMIT $1) AS alerts
GROUP BY kind
UNION ALL
SELECT 'held_events', '', count(*), extract(epoch FROM now() - min(held_at))::float8
FROM (SELECT held_at FROM held_event WHERE discarded_at IS NULL
      ORDER BY id LIMIT $1) AS held_events
UNION ALL
SELECT 'dead_letters', kind, count(*), extract(epoch FROM now() - min(created_at))::float8
FROM (SELECT kind, created_at FROM dead_letter
      WHERE resent_at IS NULL AND discarded_at IS NULL LIMIT $1) AS dead_letters
GROUP BY kind
UNION ALL
SELECT unnest(ARRAY['runs', 'runs', 'paused']), unnest(ARRAY['queued', 'running', '']),
       unnest(ARRAY[sum(queued), sum(active), count(*) FILTER (WHERE paused)])::bigint, NULL
FROM (SELECT queued, active, paused FROM dag_state LIMIT $1) AS dag_states
UNION ALL
SELECT 'dags', '', count(*), NULL FROM (SELECT FROM dag WHERE present LIMIT $1) AS dags
UNION ALL
SELECT 'import_errors', '', count(*), NULL
FROM (SELECT FROM dag_file WHERE error IS NOT NULL LIMIT $1) AS import_errors
UNION ALL
SELECT unnest(ARRAY['workers', 'slots', 'busy_slots']), '',
       unnest(ARRAY[count(*), sum(slots), sum(busy)])::bigint, NULL
FROM (SELECT slots, busy FROM worker LIMIT $1) AS workers
UNION ALL
SELECT unnest(ARRAY['triggerers', 'capacity', 'running_triggers']), '',
       unnest(ARRAY[count(*), sum(capacity), sum(running)])::bigint, NULL
FROM (SELECT capacity, running FROM triggerer LIMIT $1) AS triggerers
UNION ALL
SELECT 'unleased_triggers', '', count(*), extract(epoch FROM now() - min(created_at))::float8
FROM (
    SELECT created_at FROM trigger
    WHERE owner IS NULL AND kind IN ('trigger', 'watch')
    ORDER BY id LIMIT $1
) AS unleased;
