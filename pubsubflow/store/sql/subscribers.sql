-- Subscriptions that deliver events to URLs, and their deliveries.

-- name: create_event_subscription
-- Insert a subscription to events from now on, unless there are $10 already; return it.
INSERT INTO event_subscription (id, url, dataset, expression, dags, filter, mode, ordered,
                               description, cursor)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, CASE WHEN is_called THEN last_value ELSE 0 END
FROM event_id
WHERE (SELECT count(*) FROM event_subscription) < $10
RETURNING *;

-- name: list_event_subscriptions
-- Return subscriptions after id $1, with the number of deliveries that wait for a retry.
SELECT s.*, (SELECT count(*) FROM event_delivery WHERE subscription = s.id) AS waiting
FROM event_subscription AS s
WHERE s.id > $1
ORDER BY s.id
LIMIT $2;

-- name: read_event_subscription
-- Return a subscription, with the number of deliveries that wait for a retry.
SELECT s.*, (SELECT count(*) FROM event_delivery WHERE subscription = s.id) AS waiting
FROM event_subscription AS s
WHERE s.id = $1;

-- name: lock_event_subscription
-- Lock a subscription and return its version.
SELECT version FROM event_subscription WHERE id = $1 FOR UPDATE;

-- name: set_event_subscription_state
-- Pause or resume a subscription.
UPDATE event_subscription SET state = $2, reason = NULL, version = version + 1 WHERE id = $1;

-- name: delete_event_subscription
-- Delete a subscription, with the deliveries that wait for a retry.
DELETE FROM event_subscription WHERE id = $1;

-- name: list_active_event_subscriptions
-- Return the active subscriptions.
SELECT * FROM event_subscription WHERE state = 'active' ORDER BY id;

-- name: read_last_event_id
-- Return the highest event id allocated.
SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM event_id;

-- name: find_event_writers
-- Return the open transactions that may have allocated event ids.
-- To allocate ids, a transaction reads event_wait, and keeps its lock on it until it ends. Other
-- clients lock it too, such as pg_dump for hours, but not under our application name.
SELECT DISTINCT l.virtualtransaction
FROM pg_locks AS l
LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.relation = 'event_wait'::regclass
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.granted
  AND coalesce(a.application_name, 'pubsubflow') = 'pubsubflow'
  AND l.pid <> pg_backend_pid();

-- name: find_event_after
-- Return the id of the first event in ($1, $2].
SELECT id FROM event WHERE id > $1 AND id <= $2 ORDER BY id LIMIT 1;

-- name: find_events_to_deliver
-- Return the ids in ($1, $2] of events of datasets that match $3, emitted by tasks of the DAGs $4,
-- except those that wait for a retry.
SELECT event.id
FROM event
WHERE event.id > $1 AND event.id <= $2
  AND ($3::text IS NULL OR (SELECT uri FROM dataset WHERE dataset.id = event.dataset) ~ $3)
  AND (cardinality($4::text[]) = 0 OR (
      SELECT dag.dag_id FROM run JOIN dag ON dag.id = run.dag WHERE run.id = event.run
  ) = ANY($4))
  AND NOT EXISTS (
      SELECT FROM event_delivery AS d WHERE d.subscription = $6 AND d.event = event.id
  )
ORDER BY event.id
LIMIT $5;

-- name: list_waiting_deliveries
-- Return the deliveries of a subscription that wait for a retry, with the seconds until then: those
-- after its cursor first, then the next due.
SELECT event, attempts,
       greatest(extract(epoch FROM due_at - clock_timestamp()), 0)::float8 AS seconds
FROM event_delivery
WHERE subscription = $1
ORDER BY event <= $2, due_at
LIMIT $3;

-- name: count_waiting_deliveries
-- Count the deliveries of a subscription that wait for a retry.
SELECT count(*) FROM event_delivery WHERE subscription = $1;

-- name: delete_deliveries
-- Delete finished deliveries.
DELETE FROM event_delivery WHERE subscription = $1 AND event = ANY($2::bigint[]);

-- name: postpone_deliveries
-- Insert or postpone deliveries for a retry after so many seconds.
INSERT INTO event_delivery (subscription, event, attempts, due_at)
SELECT $1, event, attempts, clock_timestamp() + make_interval(secs => seconds)
FROM unnest($2::bigint[], $3::int[], $4::float8[]) AS n (event, attempts, seconds)
ON CONFLICT (subscription, event) DO UPDATE SET
    attempts = excluded.attempts, due_at = excluded.due_at;

-- name: record_deliveries
-- Advance the cursor of a subscription, add to its counts, and record the last response if there
-- was one.
UPDATE event_subscription SET
    cursor = greatest(cursor, $2),
    delivered = delivered + $3,
    dead = dead + $4,
    last_at = CASE WHEN $5 THEN now() ELSE last_at END,
    last_status = CASE WHEN $5 THEN $6 ELSE last_status END,
    last_error = CASE WHEN $5 THEN $7 ELSE last_error END
WHERE id = $1
RETURNING id;

-- name: mark_event_subscription_gone
-- Stop a subscription whose receiver answered 410 Gone, until a person resumes it.
UPDATE event_subscription SET state = 'gone', reason = $2, version = version + 1
WHERE id = $1 AND state = 'active';

-- name: redeliver_event
-- Queue one more delivery of an event, due now; no row if the event or the subscription is gone.
INSERT INTO event_delivery (subscription, event, attempts, due_at)
SELECT s.id, event.id, 0, now()
FROM event_subscription AS s, event
WHERE s.id = $1 AND event.event_id = $2
ON CONFLICT (subscription, event) DO UPDATE SET attempts = 0, due_at = now()
RETURNING event;
