-- Approvals: waits that people end, and their answers.

-- name: lock_approval
-- Put the answers to an approval one after the other.
SELECT pg_advisory_xact_lock(hashtextextended('psf approval ' || $1::text, 0));

-- name: find_approvals
-- Return the waits of approvals by their ids.
SELECT t.id AS number, t.share_key, t.data, t.created_at, t.node, t.map_index, run.run_id,
       run.version, dag.dag_id
FROM trigger AS t
JOIN run ON run.id = t.run
JOIN dag ON dag.id = run.dag
WHERE t.kind = 'event' AND t.share_key IS NOT NULL AND t.share_key = ANY($1::text[])
ORDER BY t.id;

-- name: page_approvals
-- Return the waits of approvals before id $1, newest first.
SELECT t.id AS number, t.share_key, t.data, t.created_at, t.node, t.map_index, run.run_id,
       run.version, dag.dag_id
FROM trigger AS t
JOIN run ON run.id = t.run
JOIN dag ON dag.id = run.dag
WHERE t.kind = 'event' AND t.share_key IS NOT NULL AND t.id < $1
ORDER BY t.id DESC
LIMIT $2;

-- name: read_run_approvals
-- Return the approvals that the tasks of run $1 wait for, the first $2.
SELECT node, map_index, data FROM trigger
WHERE run = $1 AND kind = 'event' AND share_key IS NOT NULL
ORDER BY node, map_index
LIMIT $2;

-- name: read_approval_answers
-- Return the answers to approvals, in order.
SELECT approval, person, role, option, values, comment, via, remote, answered_at, question, run_id,
       dag_id, task_id, map_index
FROM approval_answer
WHERE approval = ANY($1::text[])
ORDER BY approval, answered_at, person;

-- name: record_approval_answer
-- Record an answer; those that are older than a year go.
WITH old AS (
    DELETE FROM approval_answer WHERE answered_at < now() - interval '1 year'
)
INSERT INTO approval_answer (approval, person, role, option, values, comment, via, remote, question,
                             run_id, dag_id, task_id, map_index, answered_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, clock_timestamp());
