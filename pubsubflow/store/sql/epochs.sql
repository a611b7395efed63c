-- The epoch of the database, and its beginning after a restore.

-- name: lock_epoch
-- Lock the epoch and return it with the identity that it is for.
SELECT number, identity FROM store_epoch FOR UPDATE;

-- name: read_store_identity
-- Return the identity of this database: cluster, database and timeline, null on a standby; the
-- number of the next transaction, which goes back by a restore, or after a crash by those that were
-- not on the disk; the last row of the change log; and whether what is committed is on a standby, too.
SELECT CASE WHEN NOT pg_is_in_recovery() THEN
           concat_ws('.', (SELECT system_identifier FROM pg_control_system()),
                     (SELECT oid FROM pg_database WHERE datname = current_database()),
                     left(pg_walfile_name(pg_current_wal_lsn()), 8))
       END AS identity,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next_transaction,
       coalesce((SELECT max(id) FROM change), (SELECT pruned_through FROM change_log), 0)
           AS last_change,
       current_setting('synchronous_standby_names') <> ''
           AND current_setting('synchronous_commit') IN ('on', 'remote_apply') AS synchronous;

-- name: write_transaction
-- Commit a transaction that writes, and so is on the disk, and return the number of the next one.
SELECT pg_current_xact_id()::text::bigint + 1 AS next_transaction
FROM pg_logical_emit_message(true, 'pubsubflow', '');

-- name: identify_store
-- Record the identity that the epoch is for.
UPDATE store_epoch SET identity = $1;

-- name: begin_epoch
-- Begin epoch $1 for identity $2.
UPDATE store_epoch SET number = $1, identity = $2, begun_at = now();

-- name: close_run_slices
-- Close the slices of runs, also those that were made ahead and have not begun.
UPDATE slice SET
    started_at = coalesce(started_at, now()),
    last_id = coalesce(last_id, CASE WHEN started_at IS NULL THEN number::bigint << 32
                                     ELSE (SELECT last_value + 1000 FROM run_number) END)
WHERE series = 'run' AND last_id IS NULL;

-- name: begin_run_slice
-- Begin slice $1 of runs: their numbers go on from its start.
WITH opened AS (SELECT open_slice('run', $1) AS number)
SELECT setval('run_number', opened.number::bigint << 32) FROM opened;

-- name: mark_run_slice_begun
-- Record that slice $1 of runs has begun.
UPDATE slice SET started_at = now() WHERE series = 'run' AND number = $1;

-- name: advance_triggers
-- Have the numbers of triggers go on from $1.
SELECT setval('trigger_id_seq', greatest($1, (SELECT last_value FROM trigger_id_seq)));

-- name: refence_tasks
-- Move the fences of unfinished tasks into an epoch that begins with delivery $1, of $2 deliveries;
-- what was handed out is queued again. Return how many were.
WITH moved AS (
    UPDATE task_live SET
        delivery = $1::bigint + delivery % $2::bigint,
        state = CASE WHEN state = 'running' THEN 'queued' ELSE state END,
        chained = false,
        direct = false,
        worker = NULL,
        -- The next sweep publishes their orders.
        queued_at = least(queued_at, now() - interval '1 minute'),
        started_at = CASE WHEN state = 'running' THEN NULL ELSE started_at END
    RETURNING state
)
SELECT count(*) FILTER (WHERE state = 'queued') FROM moved;

-- name: refence_waits
-- Move the fences of waits into an epoch that begins with delivery $1, of $2 deliveries.
UPDATE event_wait SET delivery = $1::bigint + delivery % $2::bigint, due = true,
                      changed_at = now();

-- name: refence_triggers
-- Take triggers from their owners, and move their fences into an epoch that begins with delivery
-- $1, of $2 deliveries, and with epoch $3 of their leases.
UPDATE trigger SET owner = NULL, epoch = greatest(epoch, $3) + 1,
                   delivery = $1::bigint + delivery % $2::bigint;

-- name: void_leases
-- Void all leases; what was held under them belongs to an epoch of the lease below $1.
UPDATE lease SET owner = NULL, epoch = greatest(epoch, $1) + 1;

-- name: forget_members
-- Delete workers and triggerers: those that live sign in again.
WITH workers AS (DELETE FROM worker)
DELETE FROM triggerer;

-- name: rename_change_log
-- Give the change log another name: a position in the one before means nothing here.
UPDATE change_log SET name = left(md5(gen_random_uuid()::text), 8);
