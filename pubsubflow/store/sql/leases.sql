-- Leases for what only one of several daemons may do.

-- name: acquire_lease
-- Acquire a lease that is free or ours, or whose owner was silent for $3 seconds; return its epoch.
INSERT INTO lease (name, owner, epoch) VALUES ($1, $2, 1)
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, epoch = lease.epoch + 1, seen_at = now()
WHERE lease.owner IS NULL OR lease.owner = excluded.owner
   OR lease.seen_at < now() - make_interval(secs => $3)
   OR lease.seen_at > now() + make_interval(secs => $3)  -- from before the clock was set back
RETURNING epoch;

-- name: renew_lease
-- Renew a lease; return no row if it has another owner by now.
UPDATE lease SET seen_at = now() WHERE name = $1 AND owner = $2 AND epoch = $3 RETURNING epoch;

-- name: release_lease
-- Release a lease.
UPDATE lease SET owner = NULL WHERE name = $1 AND owner = $2 AND epoch = $3;

-- name: revoke_lease
-- Revoke a lease from any owner, when it is certain that none is alive.
UPDATE lease SET owner = NULL WHERE name = $1;

-- name: release_leases_of
-- Release all leases of owners.
UPDATE lease SET owner = NULL WHERE owner = ANY($1::text[]);

-- name: lock_lease
-- Block a takeover of a lease until this transaction ends; return no row if it was taken over.
SELECT epoch FROM lease WHERE name = $1 AND owner = $2 AND epoch = $3 FOR KEY SHARE;
