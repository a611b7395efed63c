-- The sweeper's searches for lost messages and dead workers. A moment that lies in the future was
-- written before the clock was set back: what has it is looked at, or it would be left alone until
-- the clock gets there. Workers that live are heard before that.

-- name: read_clock
-- Return the time, in seconds since 1970.
SELECT extract(epoch FROM clock_timestamp())::float8;

-- name: find_undelivered_tasks
-- Return live tasks whose message may be lost: queued for long, or with a dead worker. What a worker
-- was given directly is handed out again with its loss; before that only if it neither begins it nor
-- gives it back for a minute.
SELECT t.run, t.node, t.map_index, t.attempt, t.delivery, t.crashes, t.state, t.chained, t.worker,
       t.queued_at, t.started_at
FROM task_live AS t
LEFT JOIN worker ON worker.worker = t.worker
    AND worker.seen_at > now() - make_interval(secs => $2)
    AND worker.seen_at < now() + make_interval(secs => $2)
WHERE NOT t.chained
  AND (t.state = 'queued' AND (t.queued_at < now() - make_interval(secs => $1)
                               OR t.queued_at > now() + interval '1 minute')
       OR t.state = 'running' AND worker.worker IS NULL)
  AND (NOT t.direct OR t.state = 'queued' AND worker.worker IS NOT NULL
                       AND t.queued_at < now() - interval '1 minute')
ORDER BY t.queued_at
LIMIT $3;

-- name: claim_undelivered_tasks
-- Record that queued tasks are sent again; return those that no other sweep has claimed meanwhile.
-- Locked in order, as by others: two sweeps that meet wait for one another, not each for the other.
WITH locked AS (
    SELECT t.run, t.node, t.map_index
    FROM unnest($1::bigint[], $2::int[], $3::int[], $4::timestamptz[])
        AS n (run, node, map_index, queued_at)
    JOIN task_live AS t USING (run, node, map_index)
    WHERE t.state = 'queued' AND t.queued_at = n.queued_at
    ORDER BY t.run, t.node, t.map_index
    FOR UPDATE OF t
)
UPDATE task_live SET queued_at = now()
FROM locked
WHERE task_live.run = locked.run AND task_live.node = locked.node
  AND task_live.map_index = locked.map_index
RETURNING task_live.run, task_live.node, task_live.map_index;

-- name: find_sweep_work
-- Return the time, in seconds since 1970, and what a sweep may find: event waits that are due, waits
-- for previous runs, open backfills, workers without a heartbeat for $1 seconds, tasks on their way.
SELECT extract(epoch FROM clock_timestamp())::float8 AS clock,
       EXISTS (SELECT FROM event_wait WHERE due) AS event_waits,
       EXISTS (SELECT FROM past_wait) AS past_waits,
       EXISTS (SELECT FROM backfill WHERE open) AS backfills,
       tasks.found AS tasks,
       tasks.found OR EXISTS (
           SELECT FROM worker
           WHERE seen_at < now() - make_interval(secs => $1)
              OR seen_at > now() + make_interval(secs => $1)
       ) AS workers
FROM (SELECT EXISTS (SELECT FROM task_live WHERE state IN ('queued', 'running')) AS found) AS tasks;

-- name: find_dead_workers
-- Return workers without a heartbeat for $1 seconds, and owners of tasks that no message covers that
-- are not registered.
SELECT worker FROM worker
WHERE seen_at < now() - make_interval(secs => $1) OR seen_at > now() + make_interval(secs => $1)
UNION
SELECT DISTINCT t.worker FROM task_live AS t
WHERE (t.chained AND t.started_at < now() - make_interval(secs => $1)
       OR t.direct AND t.queued_at < now() - make_interval(secs => $1))
  AND NOT EXISTS (SELECT FROM worker WHERE worker.worker = t.worker);

-- name: find_running_tasks
-- Return $3 tasks after the task ($4, $5, $6), in their order, that have run for $1 seconds at workers
-- with a heartbeat within $2 seconds.
SELECT t.run, t.node, t.map_index, t.attempt, t.delivery, t.worker
FROM task_live AS t
JOIN worker ON worker.worker = t.worker AND worker.seen_at > now() - make_interval(secs => $2)
WHERE (t.run, t.node, t.map_index) > ($4::bigint, $5::int, $6::int)
  AND t.state = 'running'
  AND (t.started_at < now() - make_interval(secs => $1)
       OR t.started_at > now() + interval '1 minute')
ORDER BY t.run, t.node, t.map_index
LIMIT $3;

-- name: read_live_runs
-- Return live runs, without a lock.
SELECT run, dag, version, progress, info, source,
       (SELECT array_agg(chunk.progress ORDER BY chunk.number) FROM progress_chunk AS chunk
        WHERE chunk.run = run_live.run) AS chunks
FROM run_live WHERE run = ANY($1::bigint[]);

-- name: list_worker_names
-- Return the names of all workers that have not signed off, or that were given a task before they
-- were registered.
SELECT worker FROM worker
UNION
SELECT worker FROM task_live WHERE worker IS NOT NULL AND direct
ORDER BY worker;
