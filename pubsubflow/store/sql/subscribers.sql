-- Who wants events at a URL, and what became of their deliveries.

-- name: add_http_subscription
-- Subscribe from now on; returns the row.
INSERT INTO http_subscription (id, url, dataset, expression, dags, filter, mode, ordered,
                               description, cursor)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, CASE WHEN is_called THEN last_value ELSE 0 END
FROM event_id
WHERE (SELECT count(*) FROM http_subscription) < $10
RETURNING *;

-- name: list_http_subscriptions
-- Return subscriptions after id $1, with how many deliveries wait for another try.
SELECT s.*, (SELECT count(*) FROM http_delivery WHERE subscription = s.id) AS waiting
FROM http_subscription AS s
WHERE s.id > $1
ORDER BY s.id
LIMIT $2;

-- name: read_http_subscription
-- Return a subscription, with how many deliveries wait for another try.
SELECT s.*, (SELECT count(*) FROM http_delivery WHERE subscription = s.id) AS waiting
FROM http_subscription AS s
WHERE s.id = $1;

-- name: lock_http_subscription
-- Lock a subscription and return its version.
SELECT version FROM http_subscription WHERE id = $1 FOR UPDATE;

-- name: change_http_subscription
-- Pause or resume a subscription.
UPDATE http_subscription SET state = $2, reason = NULL, version = version + 1 WHERE id = $1;

-- name: remove_http_subscription
-- End a subscription; what waits for another try is gone with it.
DELETE FROM http_subscription WHERE id = $1;

-- name: read_active_http_subscriptions
-- Return who is delivered to.
SELECT * FROM http_subscription WHERE state = 'active' ORDER BY id;

-- name: take_lease
-- Take a lease that is free or ours, or whose owner was silent for $3 seconds; returns its epoch.
INSERT INTO lease (name, owner, epoch) VALUES ($1, $2, 1)
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, epoch = lease.epoch + 1, seen_at = now()
WHERE lease.owner IS NULL OR lease.owner = excluded.owner
   OR lease.seen_at < now() - make_interval(secs => $3)
RETURNING epoch;

-- name: keep_lease
-- Note that the owner of a lease lives; returns nothing if it is not the owner any more.
UPDATE lease SET seen_at = now() WHERE name = $1 AND owner = $2 AND epoch = $3 RETURNING epoch;

-- name: leave_lease
-- Give a lease back.
UPDATE lease SET owner = NULL WHERE name = $1 AND owner = $2 AND epoch = $3;

-- name: free_lease
-- Take a lease away from whoever has it: it is known that none of these lives.
UPDATE lease SET owner = NULL WHERE name = $1;

-- name: hold_lease
-- Keep a lease from being taken over until the transaction ends; nothing if it was already.
SELECT epoch FROM lease WHERE name = $1 AND owner = $2 AND epoch = $3 FOR KEY SHARE;

-- name: read_last_event
-- Return the highest event id that anybody has taken.
SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM event_id;

-- name: find_event_writers
-- Return the transactions that may have taken event ids and are under way: to take them, they read
-- event_wait. Others do too, such as pg_dump for hours, but not under our name.
SELECT DISTINCT l.virtualtransaction
FROM pg_locks AS l
LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.relation = 'event_wait'::regclass
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.granted
  AND coalesce(a.application_name, 'pubsubflow') = 'pubsubflow'
  AND l.pid <> pg_backend_pid();

-- name: find_subscribed_events
-- Return the ids in ($1, $2] of events of datasets like $3 that tasks of the DAGs $4 emitted, but
-- for those that wait for another try already.
SELECT event.id
FROM event
WHERE event.id > $1 AND event.id <= $2
  AND ($3::text IS NULL OR (SELECT uri FROM dataset WHERE dataset.id = event.dataset) ~ $3)
  AND (cardinality($4::text[]) = 0 OR (
      SELECT dag.dag_id FROM run JOIN dag ON dag.id = run.dag WHERE run.id = event.run
  ) = ANY($4))
  AND NOT EXISTS (
      SELECT FROM http_delivery AS d WHERE d.subscription = $6 AND d.event = event.id
  )
ORDER BY event.id
LIMIT $5;

-- name: read_http_deliveries
-- Return what a subscriber is to be sent again, with the seconds until then: what comes after its
-- cursor, then what is due first.
SELECT event, attempts,
       greatest(extract(epoch FROM due_at - clock_timestamp()), 0)::float8 AS seconds
FROM http_delivery
WHERE subscription = $1
ORDER BY event <= $2, due_at
LIMIT $3;

-- name: count_http_deliveries
-- Return how much a subscriber is to be sent again.
SELECT count(*) FROM http_delivery WHERE subscription = $1;

-- name: settle_deliveries
-- Forget deliveries that are done with.
DELETE FROM http_delivery WHERE subscription = $1 AND event = ANY($2::bigint[]);

-- name: postpone_deliveries
-- Keep deliveries for another try, after so many seconds.
INSERT INTO http_delivery (subscription, event, attempts, due_at)
SELECT $1, event, attempts, clock_timestamp() + make_interval(secs => seconds)
FROM unnest($2::bigint[], $3::int[], $4::float8[]) AS n (event, attempts, seconds)
ON CONFLICT (subscription, event) DO UPDATE SET
    attempts = excluded.attempts, due_at = excluded.due_at;

-- name: note_deliveries
-- Move the cursor of a subscription on, and note what its receiver said last, if anything.
UPDATE http_subscription SET
    cursor = greatest(cursor, $2),
    delivered = delivered + $3,
    dead = dead + $4,
    last_at = CASE WHEN $5 THEN now() ELSE last_at END,
    last_status = CASE WHEN $5 THEN $6 ELSE last_status END,
    last_error = CASE WHEN $5 THEN $7 ELSE last_error END
WHERE id = $1
RETURNING id;

-- name: end_http_subscription
-- The receiver wants nothing any more: stop until a person resumes it.
UPDATE http_subscription SET state = 'gone', reason = $2, version = version + 1
WHERE id = $1 AND state = 'active';

-- name: redeliver_event
-- Send an event to a subscriber once more, now; nothing if either is gone.
INSERT INTO http_delivery (subscription, event, attempts, due_at)
SELECT s.id, event.id, 0, now()
FROM http_subscription AS s, event
WHERE s.id = $1 AND event.event_id = $2
ON CONFLICT (subscription, event) DO UPDATE SET attempts = 0, due_at = now()
RETURNING event;
