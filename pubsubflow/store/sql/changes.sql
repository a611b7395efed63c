-- The change log: written with the state, read in order.

-- name: record_changes
-- Append a row; the manager does so within write_batch.
INSERT INTO change (body) VALUES ($1);

-- name: read_changes
-- Return the log's name, the id up to which it is pruned, the last id allocated, and the rows with
-- ids from $1 to $2: $3 at most, and about $4 bytes.
SELECT change_log.name, change_log.pruned_through, last_value - (NOT is_called)::int AS last,
       found.id, found.body
FROM change_log CROSS JOIN change_id_seq
LEFT JOIN LATERAL (
    SELECT id, body, sum(octet_length(body)) OVER (ORDER BY id) - octet_length(body) AS before
    FROM change WHERE id >= $1 AND id <= $2 ORDER BY id LIMIT $3
) AS found ON found.before < $4::bigint
ORDER BY found.id;

-- name: find_change_writers
-- Return the transactions that may have allocated an id and have not ended.
-- A writer locks the table before it allocates an id, and until its row is visible.
SELECT virtualtransaction
FROM pg_locks
WHERE relation = 'change'::regclass AND mode = 'RowExclusiveLock' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database());

-- name: prune_changes
-- Delete rows older than $1 seconds among the first $2, and return the last id deleted, if any.
WITH first AS (
    SELECT id, at FROM change ORDER BY id LIMIT $2
), last AS (
    SELECT max(id) AS id FROM first WHERE at < now() - make_interval(secs => $1)
), gone AS (
    DELETE FROM change USING last WHERE change.id <= last.id
)
UPDATE change_log SET pruned_through = last.id FROM last WHERE last.id IS NOT NULL
RETURNING change_log.pruned_through;
