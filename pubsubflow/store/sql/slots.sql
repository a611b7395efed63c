-- Slots of pools, DAGs and concurrency keys: who has one, and who waits in which line.

-- name: lock_slots
-- Lock all slots; the last lock of a transaction. It looks at event_wait to hold that against those
-- who look for events, as lock_gates does.
SELECT pg_advisory_xact_lock(7233003), EXISTS (SELECT FROM event_wait);

-- name: name_line
-- Return the line of those who need slots of the limits $1, each of which has $2 at most.
WITH made AS (
    INSERT INTO line (limits, most) VALUES ($1::text[], $2::int[])
    ON CONFLICT (limits, most) DO NOTHING
    RETURNING id
)
SELECT id FROM made
UNION ALL
SELECT id FROM line WHERE limits = $1 AND most = $2;

-- name: leave_slots
-- Give back what tasks have, or take them out of their lines.
DELETE FROM slot
USING unnest($1::bigint[], $2::int[], $3::int[]) AS n (run, node, map_index)
WHERE slot.run = n.run AND slot.node = n.node AND slot.map_index = n.map_index
RETURNING slot.line, slot.held;

-- name: join_lines
-- Let tasks stand in lines: run, node, map index, line, priority.
INSERT INTO slot (run, node, map_index, line, priority)
SELECT run, node, map_index, line, priority
FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[], $5::int[])
  WITH ORDINALITY AS n (run, node, map_index, line, priority, place)
ORDER BY place;

-- name: read_lines
-- Return the lines concerned, which have a limit $2 or share one with the lines $1, and all others
-- that share a limit with one of those: who counts for them.
WITH freed AS (
    SELECT array_agg(name) AS names FROM (
        SELECT unnest(limits) FROM line WHERE id = ANY($1::int[])
        UNION SELECT unnest($2::text[])
    ) AS each (name)
), near AS (
    SELECT array_agg(DISTINCT name) AS names
    FROM freed, line CROSS JOIN unnest(line.limits) AS name
    WHERE line.limits && freed.names
)
SELECT line.id, line.limits, line.most, line.used, line.waiting,
       line.limits && freed.names AS concerned
FROM freed, near, line
WHERE line.limits && near.names;

-- name: read_pools
-- Return the slots of the pools $1.
SELECT name, slots, changed_at FROM pool WHERE name = ANY($1::text[]);

-- name: read_first_waiting
-- Return who stands first in the lines $1, $2 of each.
SELECT first.run, first.node, first.map_index, first.line, first.priority, first.position
FROM unnest($1::int[], $2::int[]) AS asked (line, room)
CROSS JOIN LATERAL (
    SELECT run, node, map_index, line, priority, position FROM slot
    WHERE slot.line = asked.line AND NOT slot.held
    ORDER BY priority DESC, position
    LIMIT asked.room
) AS first;

-- name: hold_slots
-- Give slots to tasks.
UPDATE slot SET held = true
FROM unnest($1::bigint[], $2::int[], $3::int[]) AS n (run, node, map_index)
WHERE slot.run = n.run AND slot.node = n.node AND slot.map_index = n.map_index;

-- name: count_lines
-- Count who has slots and who waits: line, slots, waiting.
UPDATE line SET used = line.used + n.used, waiting = line.waiting + n.waiting
FROM unnest($1::int[], $2::int[], $3::int[]) AS n (id, used, waiting)
WHERE line.id = n.id;

-- name: release_ready
-- Let tasks go that got their slots; the slots are locked, their runs need not be.
UPDATE task_live SET state = 'queued', queued_at = now()
FROM unnest($1::bigint[], $2::int[], $3::int[]) AS n (run, node, map_index)
WHERE task_live.run = n.run AND task_live.node = n.node AND task_live.map_index = n.map_index
  AND task_live.state = 'ready'
RETURNING task_live.run, task_live.node, task_live.map_index, task_live.attempt,
          task_live.delivery, task_live.crashes, task_live.started_at, task_live.base;

-- name: set_pool
-- Set how many slots a pool has.
INSERT INTO pool (name, slots) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET slots = excluded.slots, changed_at = now()
WHERE pool.slots <> excluded.slots;

-- name: remove_pool
-- Take a pool's limit away.
DELETE FROM pool WHERE name = $1 RETURNING name;

-- name: page_pools
-- Return pools after the name $1: those that are set, and those that only tasks name, while any
-- needs a slot.
SELECT name, slots, changed_at, coalesce(sum(line.used), 0)::int AS used,
       coalesce(sum(line.waiting), 0)::int AS waiting
FROM (
    SELECT name, slots, changed_at FROM pool
    UNION ALL
    SELECT DISTINCT substr(named, 6), NULL::int, NULL::timestamptz
    FROM line CROSS JOIN unnest(line.limits) AS named
    WHERE named LIKE 'pool:%' AND line.used + line.waiting > 0
      AND NOT EXISTS (SELECT FROM pool WHERE pool.name = substr(named, 6))
) AS known
LEFT JOIN line ON line.limits && ARRAY['pool:' || name]
WHERE name > $1 AND ($3::text IS NULL OR name = $3)
GROUP BY name, slots, changed_at
ORDER BY name
LIMIT $2;

-- name: read_task_lines
-- Return the lines in which tasks of a run wait: node, map index, line.
SELECT node, map_index, line FROM slot
WHERE run = $1 AND (node, map_index) >= ($2::int, $3::int)
  AND (node, map_index) <= ($4::int, $5::int) AND NOT held;
