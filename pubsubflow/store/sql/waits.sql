-- Deferred tasks: what they wait for, and what tasks have recorded.

-- name: record_steps
-- Add to the records of tasks.
INSERT INTO step (run, node, map_index, key, label, kind, value, error)
SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::text[], $5::text[], $6::text[],
                     $7::bytea[], $8::jsonb[])
ON CONFLICT (run, node, map_index, key) DO NOTHING;

-- name: drop_steps
-- Take entries out of the records of tasks.
DELETE FROM step
USING unnest($1::bigint[], $2::int[], $3::int[], $4::text[]) AS n (run, node, map_index, key)
WHERE step.run = n.run AND step.node = n.node AND step.map_index = n.map_index
  AND step.key = n.key;

-- name: read_records
-- Return what tasks have recorded, in order.
SELECT step.run, step.node, step.map_index, step.key, step.label, step.kind, step.value, step.error
FROM unnest($1::bigint[], $2::int[], $3::int[]) AS n (run, node, map_index)
JOIN step USING (run, node, map_index)
ORDER BY step.run, step.node, step.map_index, step.id;

-- name: begin_waits
-- Keep what tasks wait for; those that wait for an event are to look for it.
WITH begun AS (
    SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[], $5::int[], $6::text[],
                         $7::text[], $8::bytea[], $9::text[], $10::timestamptz[], $11::int[],
                         $12::text[], $13::text[], $14::timestamptz[], $15::bigint[])
      AS n (run, node, map_index, delivery, slot, kind, name, data, share, due_at, dataset,
            expression, filter, since, after)
), made AS (
    INSERT INTO trigger (run, node, map_index, delivery, slot, kind, name, data, share, due_at)
    SELECT run, node, map_index, delivery, slot, kind, name, data, share, due_at FROM begun
    RETURNING id, run, node, map_index, slot
)
INSERT INTO event_wait (trigger, dataset, expression, filter, since, after, run, node, map_index,
                        delivery, slot)
SELECT made.id, begun.dataset, begun.expression, begun.filter, begun.since, begun.after, begun.run,
       begun.node, begun.map_index, begun.delivery, begun.slot
FROM made JOIN begun USING (run, node, map_index, slot)
WHERE begun.kind = 'event';

-- name: end_waits
-- Forget what tasks waited for; triggers that users cancelled ($4) stay until their owner has
-- cleaned up. Returns the triggers that somebody may run.
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
-- Return the waits for events of the datasets $1; also those that are to look already: they may
-- just have done so, in this transaction.
SELECT w.trigger, w.filter, w.run, w.node, w.map_index, dataset.uri
FROM event_wait AS w
JOIN dataset ON dataset.id = ANY($1::int[])
            AND (w.dataset = dataset.id OR w.dataset IS NULL AND dataset.uri ~ w.expression)
ORDER BY w.trigger;

-- name: make_event_waits_due
-- Note that waits have something to look at.
UPDATE event_wait SET due = true, changed_at = now()
WHERE trigger = ANY($1::bigint[]);

-- name: await_event_writers
-- Wait for those who record events; others wait for us. To be called after runs were locked, and
-- before any gate is.
LOCK TABLE event_wait IN ACCESS EXCLUSIVE MODE;

-- name: read_looks
-- Return the waits of tasks that have something to look at.
SELECT w.trigger, w.dataset, w.expression, w.filter, w.since, w.after, w.run, w.node, w.map_index,
       w.delivery, w.slot
FROM unnest($1::bigint[], $2::int[], $3::int[]) AS n (run, node, map_index)
JOIN event_wait AS w USING (run, node, map_index)
WHERE w.due
ORDER BY w.trigger;

-- name: read_events_after
-- Return events of a dataset $1, or of those that match $2, after id $3 recorded from $4 on.
SELECT * FROM told_event
WHERE told_event.dataset IN (SELECT d.id FROM dataset AS d WHERE d.id = $1 OR d.uri ~ $2)
  AND told_event.id > $3 AND told_event.recorded_at >= $4
ORDER BY told_event.id
LIMIT $5;

-- name: note_looked
-- Note up to where waits have looked.
UPDATE event_wait SET due = false, after = n.after, changed_at = now()
FROM unnest($1::bigint[], $2::bigint[]) AS n (trigger, after)
WHERE event_wait.trigger = n.trigger;

-- name: find_overdue_looks
-- Return tasks whose waits have had something to look at for long: who was to look is no more.
SELECT DISTINCT run, node, map_index FROM event_wait
WHERE due AND changed_at < now() - make_interval(secs => $1)
ORDER BY run, node, map_index
LIMIT $2;

-- name: lock_watches
-- Lock watched datasets' triggers, in order.
SELECT trigger.id, trigger.epoch, trigger.sequence, dataset.uri
FROM trigger JOIN dataset ON dataset.id = trigger.dataset
WHERE trigger.id = ANY($1::bigint[]) AND trigger.kind = 'watch'
ORDER BY trigger.id
FOR UPDATE OF trigger;

-- name: move_watches
-- Keep the positions of watched datasets, with their events.
UPDATE trigger SET sequence = n.sequence, position = n.position
FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) AS n (id, sequence, position)
WHERE trigger.id = n.id;

-- name: find_epochs
-- Return the epochs of triggers.
SELECT id, epoch FROM trigger WHERE id = ANY($1::bigint[]);
