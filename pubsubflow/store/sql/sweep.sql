-- The safety net: what should have moved and did not.

-- name: find_undelivered
-- Return live tasks whose message may be lost: queued for long, or with a worker that is no more.
SELECT t.run, t.node, t.map_index, t.attempt, t.delivery, t.crashes, t.state, t.chained, t.worker,
       t.queued_at, t.started_at
FROM task_live AS t
LEFT JOIN worker ON worker.worker = t.worker AND worker.seen_at > now() - make_interval(secs => $2)
WHERE NOT t.chained
  AND (t.state = 'queued' AND t.queued_at < now() - make_interval(secs => $1)
       OR t.state = 'running' AND worker.worker IS NULL)
ORDER BY t.queued_at
LIMIT $3;

-- name: note_swept
-- Note that tasks were handed out once more, so that others come first next time.
UPDATE task_live SET queued_at = now()
FROM unnest($1::bigint[], $2::int[], $3::int[]) AS n (run, node, map_index)
WHERE task_live.run = n.run AND task_live.node = n.node AND task_live.map_index = n.map_index
  AND task_live.state = 'queued';

-- name: find_dead_workers
-- Return workers that were not seen for $1 seconds, and owners of chained tasks that nobody knows.
SELECT worker FROM worker WHERE seen_at < now() - make_interval(secs => $1)
UNION
SELECT DISTINCT t.worker FROM task_live AS t
WHERE t.chained AND t.started_at < now() - make_interval(secs => $1)
  AND NOT EXISTS (SELECT FROM worker WHERE worker.worker = t.worker);

-- name: read_runs_of_tasks
-- Return live runs, without a lock.
SELECT run, dag, version, progress, info FROM run_live WHERE run = ANY($1::bigint[]);

-- name: list_workers
-- Return all workers that have not said farewell.
SELECT worker FROM worker ORDER BY worker;
