-- Dead letters, read for the API.

-- name: list_dead_letters
-- Return a page of dead letters with ids below $1, newest first; resent ones too if $3.
SELECT letter.id, letter.kind, letter.subject, dag.dag_id, letter.reason,
       octet_length(letter.payload) AS size, letter.created_at, letter.resent_at
FROM dead_letter AS letter LEFT JOIN dag ON dag.id = letter.dag
WHERE letter.id < $1 AND ($3 OR letter.resent_at IS NULL)
ORDER BY letter.id DESC
LIMIT $2;

-- name: read_dead_letter
-- Return a dead letter.
SELECT letter.id, letter.kind, letter.subject, dag.dag_id, letter.reason,
       octet_length(letter.payload) AS size, letter.created_at, letter.resent_at, letter.payload
FROM dead_letter AS letter LEFT JOIN dag ON dag.id = letter.dag
WHERE letter.id = $1;

-- name: find_newer_dead_letter
-- Return the newest dead letter after $1 of the same DAG.
SELECT id, reason FROM dead_letter
WHERE dag = (SELECT dag FROM dead_letter WHERE id = $1) AND id > $1
ORDER BY id DESC LIMIT 1;
