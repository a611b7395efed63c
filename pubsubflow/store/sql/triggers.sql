-- Leases of triggers. Whoever takes triggers holds its own row of `triggerer` while it does, so
-- that nobody can declare it dead in between and miss what it took.

-- name: register_triggerer
-- Note that a triggerer lives.
INSERT INTO triggerer (name, host, pid, capacity) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET seen_at = now();

-- name: beat_triggerer
-- Note that a triggerer lives, and how many it runs; return how many live. No row: it was declared
-- dead.
UPDATE triggerer SET seen_at = now(), running = $2 WHERE name = $1
RETURNING (SELECT count(*) FROM triggerer);

-- name: claim_triggers
-- Give triggerer $1 up to $2 triggers that nobody runs.
WITH me AS (
    SELECT name FROM triggerer WHERE name = $1 FOR KEY SHARE
), free AS (
    SELECT id FROM trigger
    WHERE owner IS NULL AND kind IN ('trigger', 'watch') AND NOT cancelled
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE trigger AS t SET owner = me.name, epoch = t.epoch + 1
FROM me, free WHERE t.id = free.id
RETURNING t.id, t.epoch, t.kind, t.name, t.data, t.share, t.run, t.node, t.map_index, t.delivery,
          t.slot, t.position, t.sequence, t.error, t.created_at;

-- name: claim_cancelled_triggers
-- Give triggerer $1 up to $2 cancelled triggers that nobody runs, and return those of its own too.
WITH me AS (
    SELECT name FROM triggerer WHERE name = $1 FOR KEY SHARE
), free AS (
    SELECT id FROM trigger
    WHERE cancelled AND kind = 'trigger' AND (owner IS NULL OR owner = $1) AND id <> ALL($3::bigint[])
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE trigger AS t SET owner = me.name, epoch = t.epoch + (t.owner IS NULL)::int
FROM me, free WHERE t.id = free.id
RETURNING t.id, t.epoch, t.kind, t.name, t.data, t.share, t.run, t.node, t.map_index, t.delivery,
          t.slot, t.position, t.sequence, t.error, t.created_at;

-- name: sum_leases
-- Return what tells whether the triggers of a triggerer are those that it thinks it has.
SELECT count(*) AS number, coalesce(sum(id), 0)::bigint AS ids,
       coalesce(sum(epoch), 0)::bigint AS epochs
FROM trigger WHERE owner = $1;

-- name: list_leases
-- Return the triggers of a triggerer.
SELECT id, epoch FROM trigger WHERE owner = $1;

-- name: bury_triggerers
-- Forget triggerers that were silent for $1 seconds; they may not be taking anything just now.
DELETE FROM triggerer WHERE name IN (
    SELECT name FROM triggerer WHERE seen_at < now() - make_interval(secs => $1)
    ORDER BY name FOR UPDATE SKIP LOCKED
)
RETURNING name;

-- name: bury_all_triggerers
-- Forget all triggerers.
DELETE FROM triggerer RETURNING name;

-- name: bury_triggerer
-- Forget one triggerer.
DELETE FROM triggerer WHERE name = $1;

-- name: free_triggers
-- Give back the triggers of triggerers; return which.
UPDATE trigger SET owner = NULL WHERE id IN (
    SELECT id FROM trigger WHERE owner = ANY($1::text[]) ORDER BY id FOR UPDATE
)
RETURNING id;

-- name: give_back_triggers
-- Give back some triggers of one triggerer.
UPDATE trigger SET owner = NULL WHERE id IN (
    SELECT id FROM trigger WHERE id = ANY($2::bigint[]) AND owner = $1 ORDER BY id FOR UPDATE
);

-- name: remove_cancelled_triggers
-- Remove cancelled triggers that their owner has cleaned up.
DELETE FROM trigger WHERE id IN (
    SELECT id FROM trigger
    WHERE id = ANY($2::bigint[]) AND owner = $1 AND cancelled ORDER BY id FOR UPDATE
);

-- name: note_trigger_errors
-- Note why watches had to be started again, or that they are well.
UPDATE trigger AS t SET error = n.error
FROM unnest($2::bigint[], $3::text[]) AS n (id, error)
WHERE t.id = n.id AND t.owner = $1;

-- name: page_triggers
-- Return what is waited for before number $1, of kind $3 if that is given, the newest first.
SELECT t.id AS number, t.kind, t.name, t.node, t.map_index, t.due_at, t.owner, t.cancelled, t.error,
       t.created_at, run.run_id, run.version, dag.dag_id, dataset.uri AS dataset
FROM trigger AS t
LEFT JOIN run ON run.id = t.run
LEFT JOIN dag ON dag.id = run.dag
LEFT JOIN dataset ON dataset.id = t.dataset
WHERE t.id < $1 AND ($3::text IS NULL OR t.kind = $3)
ORDER BY t.id DESC
LIMIT $2;

-- name: sum_triggerers
-- Return how many triggerers live, and for how many more triggers they have room.
SELECT count(*) AS number, coalesce(sum(greatest(capacity - running, 0)), 0)::bigint AS room
FROM triggerer WHERE seen_at > now() - interval '10 seconds';
