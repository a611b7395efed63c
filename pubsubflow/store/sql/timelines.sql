-- How long the tasks of a run took, waited and paused. Bounded: of a mapped task with many instances a
-- band says how many ran when.

-- name: summarise_run_nodes
-- Return of each node of run $1 from which $2 on that has become ready how many instances it has and
-- when they were, of at most $3 nodes.
SELECT instance.node, count(*) AS instances, min(instance.queued_at) AS queued_at,
       min(instance.started_at) AS started_at, max(instance.ended_at) AS ended_at,
       bool_or(instance.live) AS live,
       percentile_cont(0.5) WITHIN GROUP (
           ORDER BY extract(epoch FROM instance.ended_at - instance.started_at)::float8
       ) AS median_seconds,
       max(extract(epoch FROM instance.ended_at - instance.started_at)::float8) AS longest_seconds
FROM (
    SELECT node, queued_at, started_at, ended_at, false AS live FROM task
    WHERE run = $1 AND node >= $2
    UNION ALL
    SELECT node, queued_at, started_at, NULL, true FROM task_live WHERE run = $1 AND node >= $2
) AS instance
GROUP BY instance.node
ORDER BY instance.node
LIMIT $3;

-- name: read_timeline_tasks
-- Return the instances of each of the nodes $2 of run $1, in map order: at most $4 after the first $3.
SELECT wanted.node, instance.*
FROM unnest($2::int[]) AS wanted (node)
CROSS JOIN LATERAL (
    (SELECT task.map_index, task.attempt, task.state, task.queued_at, task.started_at, task.ended_at
     FROM task WHERE task.run = $1 AND task.node = wanted.node
     ORDER BY task.map_index LIMIT $3::int + $4::int)
    UNION ALL
    (SELECT t.map_index, t.attempt, t.state,
            CASE WHEN t.chained THEN t.started_at ELSE t.queued_at END, t.started_at, NULL
     FROM task_live AS t WHERE t.run = $1 AND t.node = wanted.node
     ORDER BY t.map_index LIMIT $3::int + $4::int)
    ORDER BY 1 OFFSET $3::int LIMIT $4::int
) AS instance
ORDER BY wanted.node, instance.map_index;

-- name: read_timeline_attempts
-- Return the earlier attempts of instances ($2, $3) of run $1.
SELECT a.node, a.map_index, a.attempt, a.state, a.started_at, a.ended_at
FROM unnest($2::int[], $3::int[]) AS wanted (node, map_index)
JOIN attempt AS a ON a.run = $1 AND a.node = wanted.node AND a.map_index = wanted.map_index
ORDER BY a.node, a.map_index, a.attempt, a.delivery;

-- name: read_timeline_waits
-- Return the waits of instances ($2, $3) of run $1: those that ended, and those that last.
SELECT wanted.node, wanted.map_index, waited.label, waited.since, waited.until
FROM unnest($2::int[], $3::int[]) AS wanted (node, map_index)
CROSS JOIN LATERAL (
    SELECT j.label, j.since, j.recorded_at AS until FROM journal_entry AS j
    WHERE j.run = $1 AND j.node = wanted.node AND j.map_index = wanted.map_index
      AND j.kind = 'wait' AND j.since IS NOT NULL
    UNION ALL
    SELECT trigger.name, trigger.created_at, NULL FROM trigger
    WHERE trigger.run = $1 AND trigger.node = wanted.node
      AND trigger.map_index = wanted.map_index AND NOT trigger.cancelled
) AS waited
ORDER BY wanted.node, wanted.map_index, waited.since;

-- name: count_timeline_bands
-- Count how many instances of the nodes $2 of run $1 have started and ended in each of $5 parts of
-- the times from $3 to $4 of each.
SELECT wanted.node, moment.part, sum(moment.started) AS started, sum(moment.ended) AS ended
FROM unnest($2::int[], $3::timestamptz[], $4::timestamptz[]) AS wanted (node, since, until)
CROSS JOIN LATERAL (
    SELECT width_bucket(extract(epoch FROM found.at - wanted.since)::float8, 0,
                        greatest(extract(epoch FROM wanted.until - wanted.since)::float8, 1e-6),
                        $5) AS part,
           count(*) FILTER (WHERE found.begins) AS started,
           count(*) FILTER (WHERE NOT found.begins) AS ended
    FROM (
        SELECT task.started_at AS at, true AS begins FROM task
        WHERE task.run = $1 AND task.node = wanted.node AND task.started_at IS NOT NULL
        UNION ALL
        SELECT task.ended_at, false FROM task
        WHERE task.run = $1 AND task.node = wanted.node AND task.started_at IS NOT NULL
        UNION ALL
        SELECT t.started_at, true FROM task_live AS t
        WHERE t.run = $1 AND t.node = wanted.node AND t.started_at IS NOT NULL
    ) AS found
    GROUP BY 1
) AS moment
GROUP BY wanted.node, moment.part
ORDER BY wanted.node, moment.part;
