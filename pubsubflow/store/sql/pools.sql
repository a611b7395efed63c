-- Slots of pools, DAGs and concurrency keys: held by tasks, or waited for in queues.

-- name: lock_slots
-- Lock all slots; the last lock of a transaction.
-- Reading event_wait holds off lock_event_waits, as in lock_dag_states; reading pool holds off
-- lock_tag_limits, which so never waits for these slots.
SELECT pg_advisory_xact_lock(7233003), EXISTS (SELECT FROM event_wait), EXISTS (SELECT FROM pool);

-- name: lock_tag_limits
-- Wait for transactions that hand out tasks by the present limits of tags, and block later ones.
LOCK TABLE pool IN ACCESS EXCLUSIVE MODE;

-- name: list_tag_limits
-- Return the limits of tags.
SELECT name FROM pool WHERE starts_with(name, 'tag:');

-- name: list_versions_of_live_runs
-- Return the versions of live runs.
SELECT DISTINCT version FROM run_live;

-- name: list_live_runs_of_versions
-- Return the live runs of versions.
SELECT run, dag, version, progress, info, source,
       (SELECT array_agg(chunk.progress ORDER BY chunk.number) FROM progress_chunk AS chunk
        WHERE chunk.run = run_live.run) AS chunks
FROM run_live WHERE version = ANY($1::bigint[]);

-- name: list_slotted_tasks
-- Return the tasks of runs that hold slots or wait for them, if they are limited.
SELECT run, node, map_index, state FROM task_live
WHERE run = ANY($1::bigint[]) AND state IN ('ready', 'queued', 'running')
ORDER BY run, node, map_index;

-- name: enrol_slots
-- Move tasks to queues, or insert them there: run, node, map index, queue, priority, whether it has
-- its slots.
INSERT INTO slot (run, node, map_index, wait_queue, priority, held)
SELECT run, node, map_index, wait_queue, priority, held
FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[], $5::int[], $6::boolean[])
  WITH ORDINALITY AS n (run, node, map_index, wait_queue, priority, held, ordinal)
ORDER BY ordinal
ON CONFLICT (run, node, map_index) DO UPDATE SET wait_queue = excluded.wait_queue;

-- name: delete_slots
-- Delete the slots of tasks.
DELETE FROM slot
USING unnest($1::bigint[], $2::int[], $3::int[]) AS n (run, node, map_index)
WHERE slot.run = n.run AND slot.node = n.node AND slot.map_index = n.map_index;

-- name: delete_slots_of_limit
-- Delete the slots of which $1 is the only limit, or was.
DELETE FROM slot USING wait_queue
WHERE wait_queue.id = slot.wait_queue AND wait_queue.limits = ARRAY[$1::text] AND slot.held;

-- name: delete_lost_slots
-- Delete the slots of tasks that have none: what a daemon left that did not know of their limit.
DELETE FROM slot
WHERE NOT EXISTS (
    SELECT FROM task_live AS t
    WHERE t.run = slot.run AND t.node = slot.node AND t.map_index = slot.map_index
      AND t.state IN ('ready', 'queued', 'running')
);

-- name: delete_empty_wait_queues
-- Delete the queues that are empty and were not registered to stay.
DELETE FROM wait_queue WHERE passing AND used = 0 AND waiting = 0;

-- name: count_wait_queues
-- Count the slots of all queues anew.
UPDATE wait_queue SET used = counted.used, waiting = counted.waiting
FROM (
    SELECT wait_queue.id, count(slot.run) FILTER (WHERE slot.held) AS used,
           count(slot.run) FILTER (WHERE NOT slot.held) AS waiting
    FROM wait_queue LEFT JOIN slot ON slot.wait_queue = wait_queue.id
    GROUP BY wait_queue.id
) AS counted
WHERE wait_queue.id = counted.id
  AND (wait_queue.used, wait_queue.waiting) <> (counted.used, counted.waiting);

-- name: register_wait_queue
-- Return the queue for the limits $1 of the capacities $2, inserted if it does not exist; with $3 it
-- goes when it is empty, unless it was ever registered to stay.
INSERT INTO wait_queue (limits, capacities, passing) VALUES ($1::text[], $2::int[], $3)
ON CONFLICT (limits, capacities) DO UPDATE SET passing = wait_queue.passing AND excluded.passing
RETURNING id;

-- name: register_rate_limit
-- Insert a rate limit that no DAG in force declares: name, starts, seconds, burst.
INSERT INTO rate_limit (name, starts, per_seconds, burst) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO NOTHING;

-- name: declare_rate_limits
-- Insert or change rate limits, and look for waiting tasks of those that changed.
WITH declared AS (
    INSERT INTO rate_limit (name, starts, per_seconds, burst)
    SELECT * FROM unnest($1::text[], $2::int[], $3::float8[], $4::int[])
      AS n (name, starts, per_seconds, burst)
    ORDER BY name
    ON CONFLICT (name) DO UPDATE SET
        starts = excluded.starts, per_seconds = excluded.per_seconds, burst = excluded.burst,
        declared_at = now()
    WHERE (rate_limit.starts, rate_limit.per_seconds, rate_limit.burst)
          IS DISTINCT FROM (excluded.starts, excluded.per_seconds, excluded.burst)
    RETURNING name
)
INSERT INTO timer (due_at, kind, key)
SELECT now(), 'rate_limit', name FROM declared
WHERE EXISTS (
    SELECT FROM wait_queue
    WHERE wait_queue.limits && ARRAY['rate:' || declared.name] AND wait_queue.waiting > 0
)
ORDER BY name;

-- name: read_rate_limits
-- Return the rate limits $1.
SELECT name, starts, per_seconds, burst, full_at, wake_at, now() AS now FROM rate_limit
WHERE name = ANY($1::text[]);

-- name: save_rate_limits
-- Save what is left of rate limits: name, when it is full again, when a timer is due.
UPDATE rate_limit SET full_at = n.full_at, wake_at = n.wake_at
FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS n (name, full_at, wake_at)
WHERE rate_limit.name = n.name;

-- name: release_slots
-- Release the slots of tasks, or remove the tasks from their queues.
DELETE FROM slot
USING unnest($1::bigint[], $2::int[], $3::int[]) AS n (run, node, map_index)
WHERE slot.run = n.run AND slot.node = n.node AND slot.map_index = n.map_index
RETURNING slot.wait_queue, slot.held;

-- name: join_wait_queues
-- Append tasks to queues: run, node, map index, queue, priority.
INSERT INTO slot (run, node, map_index, wait_queue, priority)
SELECT run, node, map_index, wait_queue, priority
FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[], $5::int[])
  WITH ORDINALITY AS n (run, node, map_index, wait_queue, priority, ordinal)
ORDER BY ordinal;

-- name: read_wait_queues
-- Return the queues that have a limit in $2 or share one with the queues $1 (`concerned`), and all
-- others that share a limit with one of those, since their tasks count for these limits.
WITH freed AS (
    SELECT array_agg(name) AS names FROM (
        SELECT unnest(limits) FROM wait_queue WHERE id = ANY($1::int[])
        UNION SELECT unnest($2::text[])
    ) AS each (name)
), near AS (
    SELECT array_agg(DISTINCT name) AS names
    FROM freed, wait_queue CROSS JOIN unnest(wait_queue.limits) AS name
    WHERE wait_queue.limits && freed.names
)
SELECT wait_queue.id, wait_queue.limits, wait_queue.capacities, wait_queue.used, wait_queue.waiting,
       wait_queue.passing, wait_queue.limits && freed.names AS concerned
FROM freed, near, wait_queue
WHERE wait_queue.limits && near.names;

-- name: read_pools
-- Return the pools $1.
SELECT name, slots, changed_at FROM pool WHERE name = ANY($1::text[]);

-- name: read_queue_heads
-- Return the first tasks of the queues $1, $2 of each.
SELECT first.run, first.node, first.map_index, first.wait_queue, first.priority, first.position
FROM unnest($1::int[], $2::int[]) AS requested (wait_queue, capacity)
CROSS JOIN LATERAL (
    SELECT run, node, map_index, wait_queue, priority, position FROM slot
    WHERE slot.wait_queue = requested.wait_queue AND NOT slot.held
    ORDER BY priority DESC, position
    LIMIT requested.capacity
) AS first;

-- name: grant_slots
-- Grant slots to tasks.
UPDATE slot SET held = true
FROM unnest($1::bigint[], $2::int[], $3::int[]) AS n (run, node, map_index)
WHERE slot.run = n.run AND slot.node = n.node AND slot.map_index = n.map_index;

-- name: adjust_wait_queue_counts
-- Add to the counts of queues: queue, slots held, tasks waiting.
UPDATE wait_queue SET used = wait_queue.used + n.used, waiting = wait_queue.waiting + n.waiting
FROM unnest($1::int[], $2::int[], $3::int[]) AS n (id, used, waiting)
WHERE wait_queue.id = n.id;

-- name: delete_passing_wait_queues
-- Delete those of the queues $1 that are empty and were not registered to stay.
DELETE FROM wait_queue
WHERE id = ANY($1::int[]) AND passing AND used = 0 AND waiting = 0;

-- name: queue_ready_tasks
-- Queue ready tasks whose slots were granted; the slots are locked, their runs need not be.
UPDATE task_live SET state = 'queued', queued_at = now()
FROM unnest($1::bigint[], $2::int[], $3::int[]) AS n (run, node, map_index)
WHERE task_live.run = n.run AND task_live.node = n.node AND task_live.map_index = n.map_index
  AND task_live.state = 'ready'
RETURNING task_live.run, task_live.node, task_live.map_index, task_live.attempt,
          task_live.delivery, task_live.crashes, task_live.started_at, task_live.prior_attempts;

-- name: save_pool
-- Insert or resize a pool; a pool that has the size already keeps its revision.
INSERT INTO pool (name, slots) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET slots = excluded.slots, changed_at = now()
WHERE pool.slots <> excluded.slots;

-- name: delete_pool
-- Delete a pool's limit.
DELETE FROM pool WHERE name = $1 RETURNING name;

-- name: page_pools
-- Return pools and limits of tags after the name $1: those that are set, and pools that only tasks
-- name, while any of these needs a slot. A capacity below 0 is how many slots a task of a queue takes.
SELECT name, slots, changed_at,
       coalesce(sum(wait_queue.used * greatest(
           1, -wait_queue.capacities[array_position(wait_queue.limits, limited)]
       )), 0)::int AS used,
       coalesce(sum(wait_queue.waiting), 0)::int AS waiting
FROM (
    SELECT name, slots, changed_at,
           CASE WHEN starts_with(name, 'tag:') THEN name ELSE 'pool:' || name END AS limited
    FROM pool
    UNION ALL
    SELECT DISTINCT substr(named, 6), NULL::int, NULL::timestamptz, named
    FROM wait_queue CROSS JOIN unnest(wait_queue.limits) AS named
    WHERE named LIKE 'pool:%' AND wait_queue.used + wait_queue.waiting > 0
      AND NOT EXISTS (SELECT FROM pool WHERE pool.name = substr(named, 6))
) AS known
LEFT JOIN wait_queue ON wait_queue.limits && ARRAY[limited]
WHERE name > $1 AND ($3::text IS NULL OR name = $3)
GROUP BY name, slots, changed_at
ORDER BY name
LIMIT $2;

-- name: read_task_wait_queues
-- Return the queues in which tasks of a run wait: node, map index, queue.
SELECT node, map_index, wait_queue FROM slot
WHERE run = $1 AND (node, map_index) >= ($2::int, $3::int)
  AND (node, map_index) <= ($4::int, $5::int) AND NOT held;

-- name: page_rate_limits
-- Return rate limits after the name $1, with the number of tasks that wait for them.
SELECT name, starts, per_seconds, burst, full_at, wake_at, declared_at, now() AS now,
       coalesce(sum(wait_queue.waiting), 0)::int AS waiting
FROM rate_limit LEFT JOIN wait_queue ON wait_queue.limits && ARRAY['rate:' || name]
WHERE name > $1
GROUP BY name
ORDER BY name
LIMIT $2;
