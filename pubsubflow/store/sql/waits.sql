-- Waits of deferred tasks, and journals of tasks.

-- name: record_journal_entries
-- Append entries to the journals of tasks; that of a polling sensor's looks is replaced. The waits
-- that end are still there, and say since when they lasted.
INSERT INTO journal_entry (run, node, map_index, key, label, kind, value, error, since)
SELECT n.*, (SELECT min(trigger.created_at) FROM trigger
             WHERE trigger.run = n.run AND trigger.node = n.node
               AND trigger.map_index = n.map_index AND n.kind = 'wait')
FROM unnest($1::bigint[], $2::int[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bytea[],
            $8::jsonb[]) AS n (run, node, map_index, key, label, kind, value, error)
ON CONFLICT (run, node, map_index, key) DO UPDATE
SET value = excluded.value, recorded_at = excluded.recorded_at
WHERE excluded.key = 'poll';

-- name: delete_journal_entries
-- Delete entries from the journals of tasks.
DELETE FROM journal_entry
USING unnest($1::bigint[], $2::int[], $3::int[], $4::text[]) AS n (run, node, map_index, key)
WHERE journal_entry.run = n.run AND journal_entry.node = n.node
  AND journal_entry.map_index = n.map_index AND journal_entry.key = n.key;

-- name: read_looks
-- Return the waits of deferred tasks of run $1 that are among the nodes $2, the first $3.
SELECT node, map_index, wait_set FROM task_live
WHERE run = $1 AND node = ANY($2::int[]) AND state = 'deferred' AND wait_set IS NOT NULL
ORDER BY node, map_index
LIMIT $3;

-- name: read_executor_reports
-- Return the last lines of output by executors about queued tasks of run $1 among nodes $2 and map
-- indices $3: executors number theirs below zero.
SELECT live.node, live.map_index, report.text
FROM task_live AS live
CROSS JOIN LATERAL (
    SELECT log.text FROM log
    WHERE log.run = $1 AND log.node = live.node AND log.map_index = live.map_index
      AND log.attempt = live.attempt AND log.delivery = live.delivery AND log.sequence < 0
    ORDER BY log.sequence DESC
    LIMIT 1
) AS report
WHERE live.run = $1 AND live.state = 'queued'
  AND (live.node, live.map_index) IN (SELECT * FROM unnest($2::int[], $3::int[]));

-- name: read_journals
-- Return the journals of tasks, in order.
SELECT j.run, j.node, j.map_index, j.key, j.label, j.kind, j.value, j.error
FROM unnest($1::bigint[], $2::int[], $3::int[]) AS n (run, node, map_index)
JOIN journal_entry AS j USING (run, node, map_index)
ORDER BY j.run, j.node, j.map_index, j.id;

-- name: create_waits
-- Insert the waits of deferred tasks; event waits start due for a check of the log.
WITH begun AS (
    SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::bigint[], $5::int[], $6::text[],
                         $7::text[], $8::bytea[], $9::text[], $10::timestamptz[], $11::int[],
                         $12::text[], $13::text[], $14::timestamptz[], $15::bigint[])
      AS n (run, node, map_index, delivery, wait_index, kind, name, data, share_key, due_at,
            dataset, expression, filter, since, checked_until)
), made AS (
    INSERT INTO trigger (run, node, map_index, delivery, wait_index, kind, name, data, share_key,
                         due_at)
    SELECT run, node, map_index, delivery, wait_index, kind, name, data, share_key, due_at
    FROM begun
    RETURNING id, run, node, map_index, wait_index
)
INSERT INTO event_wait (trigger, dataset, expression, filter, since, checked_until, run, node,
                        map_index, delivery, wait_index)
SELECT made.id, begun.dataset, begun.expression, begun.filter, begun.since, begun.checked_until,
       begun.run, begun.node, begun.map_index, begun.delivery, begun.wait_index
FROM made JOIN begun USING (run, node, map_index, wait_index)
WHERE begun.kind = 'event';

-- name: end_waits
-- Delete the waits of tasks; triggers cancelled by users ($4) stay until their owner has cleaned
-- up. Return the deleted triggers that have an owner.
WITH ended AS (
    SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::boolean[])
      AS n (run, node, map_index, cancelled)
), timers AS (
    DELETE FROM timer USING ended
    WHERE timer.run = ended.run AND timer.node = ended.node AND timer.map_index = ended.map_index
      AND timer.kind IN ('wait', 'wait_timeout', 'task_timeout')
), events AS (
    DELETE FROM event_wait USING ended
    WHERE event_wait.run = ended.run AND event_wait.node = ended.node
      AND event_wait.map_index = ended.map_index
), cancelled AS (
    UPDATE trigger SET cancelled = true FROM ended
    WHERE trigger.run = ended.run AND trigger.node = ended.node
      AND trigger.map_index = ended.map_index AND ended.cancelled AND trigger.kind = 'trigger'
), gone AS (
    DELETE FROM trigger USING ended
    WHERE trigger.run = ended.run AND trigger.node = ended.node
      AND trigger.map_index = ended.map_index
      AND NOT (ended.cancelled AND trigger.kind = 'trigger')
    RETURNING trigger.id, trigger.owner
)
SELECT id FROM gone WHERE owner IS NOT NULL ORDER BY id;

-- name: find_event_waits
-- Return the waits for events of the datasets $1; also waits that are due already, since this
-- transaction may just have checked them.
SELECT w.trigger, w.filter, w.run, w.node, w.map_index, dataset.uri
FROM event_wait AS w
JOIN dataset ON dataset.id = ANY($1::int[])
            AND (w.dataset = dataset.id OR w.dataset IS NULL AND dataset.uri ~ w.expression)
ORDER BY w.trigger;

-- name: mark_event_waits_due
-- Mark waits as due for a check of the log.
UPDATE event_wait SET due = true, changed_at = now()
WHERE trigger = ANY($1::bigint[]);

-- name: lock_event_waits
-- Wait for transactions that record events, and block later ones. To be called after runs are
-- locked and before any dag_state is.
LOCK TABLE event_wait IN ACCESS EXCLUSIVE MODE;

-- name: read_due_event_waits
-- Return the due event waits of tasks.
SELECT w.trigger, w.dataset, w.expression, w.filter, w.since, w.checked_until, w.run, w.node,
       w.map_index, w.delivery, w.wait_index
FROM unnest($1::bigint[], $2::int[], $3::int[]) AS n (run, node, map_index)
JOIN event_wait AS w USING (run, node, map_index)
WHERE w.due
ORDER BY w.trigger;

-- name: read_events_after
-- Return events of dataset $1, or of datasets that match $2, after id $3 and recorded from $4 on.
SELECT * FROM event_info
WHERE event_info.dataset IN (SELECT d.id FROM dataset AS d WHERE d.id = $1 OR d.uri ~ $2)
  AND event_info.id > $3 AND event_info.recorded_at >= $4
ORDER BY event_info.id
LIMIT $5;

-- name: record_event_checks
-- Record up to which position waits have checked the log.
UPDATE event_wait SET due = false, checked_until = n.checked_until, changed_at = now()
FROM unnest($1::bigint[], $2::bigint[]) AS n (trigger, checked_until)
WHERE event_wait.trigger = n.trigger;

-- name: find_overdue_event_waits
-- Return tasks whose waits have been due for long, as after the death of a manager.
SELECT DISTINCT run, node, map_index FROM event_wait
WHERE due AND changed_at < now() - make_interval(secs => $1)
ORDER BY run, node, map_index
LIMIT $2;

-- name: lock_watches
-- Lock the triggers of watched datasets, in order.
SELECT trigger.id, trigger.epoch, trigger.sequence, dataset.uri
FROM trigger JOIN dataset ON dataset.id = trigger.dataset
WHERE trigger.id = ANY($1::bigint[]) AND trigger.kind = 'watch'
ORDER BY trigger.id
FOR UPDATE OF trigger;

-- name: update_watch_positions
-- Update the positions of watched datasets, in the transaction of their events.
UPDATE trigger SET sequence = n.sequence, position = n.position
FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) AS n (id, sequence, position)
WHERE trigger.id = n.id;

-- name: read_trigger_epochs
-- Return the lease epochs of triggers.
SELECT id, epoch FROM trigger WHERE id = ANY($1::bigint[]);
