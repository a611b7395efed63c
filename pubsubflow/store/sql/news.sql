-- The log of what happened: written with the state, read in order.

-- name: record_news
-- Append a row; the manager does so within write_batch.
INSERT INTO news (body) VALUES ($1);

-- name: read_news
-- Return the log's name, up to where it is forgotten, the last number given out, and the first rows
-- with numbers from $1 up to $2: $3 of them at most, and about $4 bytes.
SELECT news_log.name, news_log.forgotten, last_value - (NOT is_called)::int AS last,
       found.id, found.body
FROM news_log CROSS JOIN news_id_seq
LEFT JOIN LATERAL (
    SELECT id, body, sum(octet_length(body)) OVER (ORDER BY id) - octet_length(body) AS before
    FROM news WHERE id >= $1 AND id <= $2 ORDER BY id LIMIT $3
) AS found ON found.before < $4::bigint
ORDER BY found.id;

-- name: read_news_writers
-- Return the transactions that may have taken a number and have not ended.
SELECT virtualtransaction
FROM pg_locks
WHERE relation = 'news'::regclass AND mode = 'RowExclusiveLock' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database());

-- name: forget_news
-- Remove rows older than $1 seconds, among the $2 first; returns up to where, if there were any.
WITH first AS (
    SELECT id, at FROM news ORDER BY id LIMIT $2
), last AS (
    SELECT max(id) AS id FROM first WHERE at < now() - make_interval(secs => $1)
), gone AS (
    DELETE FROM news USING last WHERE news.id <= last.id
)
UPDATE news_log SET forgotten = last.id FROM last WHERE last.id IS NOT NULL
RETURNING news_log.forgotten;
