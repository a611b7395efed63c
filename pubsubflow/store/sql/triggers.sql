-- Leases of triggers. A triggerer that claims triggers locks its own row of `triggerer` meanwhile,
-- so that it cannot be declared dead in between and its new claims be missed.

-- name: register_triggerer
-- Register a triggerer.
INSERT INTO triggerer (name, host, pid, capacity) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET seen_at = now();

-- name: heartbeat_triggerer
-- Record a triggerer's heartbeat and load, and return the number of triggerers, with a checksum of its
-- leases: their number, and the sums of ids and epochs; no row if it was declared dead.
-- It is not waited for on the disk: what is lost comes again.
UPDATE triggerer SET seen_at = now(), running = $2
FROM (SELECT set_config('synchronous_commit', 'off', true)) AS liveness,
     (SELECT count(*) AS living FROM triggerer) AS peers,
     (SELECT count(*) AS number, coalesce(sum(id), 0)::bigint AS ids,
             coalesce(sum(epoch), 0)::bigint AS epochs
      FROM trigger WHERE owner = $1) AS leases
WHERE triggerer.name = $1
RETURNING living, number, ids, epochs;

-- name: find_claimable_triggers
-- Return whether there are triggers for triggerer $1 to claim, or cancelled ones to clean up after.
SELECT EXISTS (
    SELECT FROM trigger
    WHERE owner IS NULL AND kind IN ('trigger', 'watch') AND NOT cancelled
) OR EXISTS (
    SELECT FROM trigger WHERE cancelled AND kind = 'trigger' AND (owner IS NULL OR owner = $1)
);

-- name: claim_triggers
-- Lease up to $2 unowned triggers to triggerer $1.
WITH me AS (
    SELECT name FROM triggerer WHERE name = $1 FOR KEY SHARE
), free AS (
    SELECT id FROM trigger
    WHERE owner IS NULL AND kind IN ('trigger', 'watch') AND NOT cancelled
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE trigger AS t SET owner = me.name, epoch = t.epoch + 1
FROM me, free WHERE t.id = free.id
RETURNING t.id, t.epoch, t.kind, t.name, t.data, t.share_key, t.run, t.node, t.map_index,
          t.delivery, t.wait_index, t.position, t.sequence, t.error, t.created_at,
          (SELECT dag.dag_id FROM run JOIN dag ON dag.id = run.dag WHERE run.id = t.run) AS dag_id;

-- name: claim_cancelled_triggers
-- Lease up to $2 cancelled triggers that are unowned to triggerer $1, and return its own cancelled
-- ones too, except $3.
WITH me AS (
    SELECT name FROM triggerer WHERE name = $1 FOR KEY SHARE
), free AS (
    SELECT id FROM trigger
    WHERE cancelled AND kind = 'trigger' AND (owner IS NULL OR owner = $1)
      AND id <> ALL($3::bigint[])
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE trigger AS t SET owner = me.name, epoch = t.epoch + (t.owner IS NULL)::int
FROM me, free WHERE t.id = free.id
RETURNING t.id, t.epoch, t.kind, t.name, t.data, t.share_key, t.run, t.node, t.map_index,
          t.delivery, t.wait_index, t.position, t.sequence, t.error, t.created_at,
          (SELECT dag.dag_id FROM run JOIN dag ON dag.id = run.dag WHERE run.id = t.run) AS dag_id;

-- name: list_trigger_leases
-- Return the leases of a triggerer.
SELECT id, epoch FROM trigger WHERE owner = $1;

-- name: delete_silent_triggerers
-- Delete triggerers without a heartbeat for $1 seconds, or whose last one lies in the future since
-- the clock was set back; locked rows are claiming triggers just now and are skipped.
DELETE FROM triggerer WHERE name IN (
    SELECT name FROM triggerer
    WHERE seen_at < now() - make_interval(secs => $1) OR seen_at > now() + make_interval(secs => $1)
    ORDER BY name FOR UPDATE SKIP LOCKED
)
RETURNING name;

-- name: delete_all_triggerers
-- Delete all triggerers.
DELETE FROM triggerer RETURNING name;

-- name: delete_triggerer
-- Delete a triggerer.
DELETE FROM triggerer WHERE name = $1;

-- name: release_triggers_of
-- Release all triggers of triggerers and return them.
UPDATE trigger SET owner = NULL WHERE id IN (
    SELECT id FROM trigger WHERE owner = ANY($1::text[]) ORDER BY id FOR UPDATE
)
RETURNING id;

-- name: release_triggers
-- Release some triggers of one triggerer.
UPDATE trigger SET owner = NULL WHERE id IN (
    SELECT id FROM trigger WHERE id = ANY($2::bigint[]) AND owner = $1 ORDER BY id FOR UPDATE
);

-- name: delete_cancelled_triggers
-- Delete cancelled triggers after their owner has cleaned up.
DELETE FROM trigger WHERE id IN (
    SELECT id FROM trigger
    WHERE id = ANY($2::bigint[]) AND owner = $1 AND cancelled ORDER BY id FOR UPDATE
);

-- name: record_trigger_errors
-- Record why watches were restarted, or cannot see their source; null for those that run well.
UPDATE trigger AS t
SET error = n.error,
    error_since = CASE WHEN n.error IS NOT NULL THEN coalesce(t.error_since, now()) END
FROM unnest($2::bigint[], $3::text[]) AS n (id, error)
WHERE t.id = n.id AND t.owner = $1;

-- name: page_triggers
-- Return waits and watches with ids below $1, of kind $3 if given, newest first.
SELECT t.id AS number, t.kind, t.name, t.node, t.map_index, t.due_at, t.owner, t.cancelled, t.error,
       t.error_since, t.data, t.created_at, run.run_id, run.version, dag.dag_id,
       dataset.uri AS dataset,
       ARRAY(SELECT file FROM watch_file WHERE watch_file.trigger = t.id ORDER BY file) AS files
FROM trigger AS t
LEFT JOIN run ON run.id = t.run
LEFT JOIN dag ON dag.id = run.dag
LEFT JOIN dataset ON dataset.id = t.dataset
WHERE t.id < $1 AND ($3::text IS NULL OR t.kind = $3)
ORDER BY t.id DESC
LIMIT $2;

-- name: count_triggerers
-- Return the number of live triggerers and their free capacity.
SELECT count(*) AS number, coalesce(sum(greatest(capacity - running, 0)), 0)::bigint AS room
FROM triggerer WHERE seen_at > now() - interval '10 seconds';

-- name: find_awaited_runs
-- Return the runs that waits are for, by their public ids.
SELECT w.number, run.id, run.run_id, dag.dag_id, run.version, run.state, run.logical_time,
       run.partition, run.error
FROM unnest($1::bigint[], $2::uuid[]) AS w (number, run_id)
JOIN run USING (run_id) JOIN dag ON dag.id = run.dag;

-- name: find_awaited_ticks
-- Return the last run of a DAG with a logical time, and perhaps with a partition.
SELECT w.number, found.id, found.run_id, w.dag_id, found.version, found.state, found.logical_time,
       found.partition, found.error
FROM unnest($1::bigint[], $2::text[], $3::timestamptz[], $4::text[])
  AS w (number, dag_id, logical_time, partition)
JOIN dag ON dag.dag_id = w.dag_id
CROSS JOIN LATERAL (
    SELECT * FROM run
    WHERE run.dag = dag.id AND run.logical_time = w.logical_time
      AND (w.partition IS NULL OR run.partition = w.partition)
    ORDER BY run.run_id DESC LIMIT 1
) AS found;

-- name: find_next_runs
-- Return the first run of a DAG that was made at $4 or later, and perhaps has a partition; $3 is the
-- least id that such a run may have.
SELECT w.number, found.id, found.run_id, w.dag_id, found.version, found.state, found.logical_time,
       found.partition, found.error
FROM unnest($1::bigint[], $2::text[], $3::uuid[], $4::timestamptz[], $5::text[])
  AS w (number, dag_id, least_id, since, partition)
JOIN dag ON dag.dag_id = w.dag_id
CROSS JOIN LATERAL (
    SELECT * FROM run
    WHERE run.dag = dag.id AND run.run_id >= w.least_id AND run.created_at >= w.since
      AND (w.partition IS NULL OR run.partition = w.partition)
    ORDER BY run.run_id LIMIT 1
) AS found;

-- name: find_ended_tasks
-- Return the instances of tasks that have ended.
SELECT task.run, task.node, task.map_index, task.state
FROM unnest($1::bigint[], $2::int[]) AS w (run, node)
JOIN task USING (run, node);
