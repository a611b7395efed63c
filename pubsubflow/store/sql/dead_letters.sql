-- Dead letters, read for the API.

-- name: list_dead_letters
-- Return a page of dead letters with ids below $1, newest first; those that are not open too if $3;
-- of kind $4, DAG $5 and reason $6, each unless null. A reason is given whole, or as it is summarised.
SELECT letter.id, letter.kind, letter.subject, dag.dag_id, letter.reason,
       octet_length(letter.payload) AS size, letter.created_at, letter.resent_at,
       letter.discarded_at
FROM dead_letter AS letter LEFT JOIN dag ON dag.id = letter.dag
WHERE letter.id < $1 AND ($3 OR letter.resent_at IS NULL AND letter.discarded_at IS NULL)
  AND ($4::text IS NULL OR letter.kind = $4) AND ($5::text IS NULL OR dag.dag_id = $5)
  AND ($6::text IS NULL OR $6 IN (letter.reason, regexp_replace(
          letter.reason, '''[^'']*''|"[^"]*"|[0-9]+', '…', 'g')))
ORDER BY letter.id DESC
LIMIT $2;

-- name: find_open_dead_letters
-- Return the oldest $1 open dead letters: those among the ids $2, of kind $3, DAG $4 and reason $5,
-- each unless null.
SELECT letter.id
FROM dead_letter AS letter LEFT JOIN dag ON dag.id = letter.dag
WHERE letter.resent_at IS NULL AND letter.discarded_at IS NULL
  AND ($2::bigint[] IS NULL OR letter.id = ANY($2))
  AND ($3::text IS NULL OR letter.kind = $3) AND ($4::text IS NULL OR dag.dag_id = $4)
  AND ($5::text IS NULL OR $5 IN (letter.reason, regexp_replace(
          letter.reason, '''[^'']*''|"[^"]*"|[0-9]+', '…', 'g')))
ORDER BY letter.id
LIMIT $1;

-- name: summarise_dead_letters
-- Count the open dead letters by kind, DAG and reason, the most frequent $1 first; numbers and quoted
-- texts in reasons are left out.
SELECT kind, dag_id, summary AS reason, count(*) AS count, min(created_at) AS oldest,
       max(created_at) AS newest, max(id) AS example
FROM (
    SELECT letter.id, letter.kind, dag.dag_id, letter.created_at, regexp_replace(
               letter.reason, '''[^'']*''|"[^"]*"|[0-9]+', '…', 'g') AS summary
    FROM dead_letter AS letter LEFT JOIN dag ON dag.id = letter.dag
    WHERE letter.resent_at IS NULL AND letter.discarded_at IS NULL
) AS letters
GROUP BY kind, dag_id, summary
ORDER BY count DESC, example DESC
LIMIT $1;

-- name: read_dead_letter
-- Return a dead letter.
SELECT letter.id, letter.kind, letter.subject, dag.dag_id, letter.reason,
       octet_length(letter.payload) AS size, letter.created_at, letter.resent_at,
       letter.discarded_at, letter.payload
FROM dead_letter AS letter LEFT JOIN dag ON dag.id = letter.dag
WHERE letter.id = $1;

-- name: find_newer_dead_letter
-- Return the newest dead letter after $1 of the same DAG.
SELECT id, reason FROM dead_letter
WHERE dag = (SELECT dag FROM dead_letter WHERE id = $1) AND id > $1
ORDER BY id DESC LIMIT 1;
