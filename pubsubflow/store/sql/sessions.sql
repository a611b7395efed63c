-- Sessions of the page.

-- name: create_session
-- Create a session that ends in $7 seconds: signed in with a cookie, or a link by which one may.
INSERT INTO session
    (id, name, token, owner, digest, link, expires_at, agent, remote, role, grants)
VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7), $8, $9, $10, $11)
RETURNING *;

-- name: follow_session_link
-- Sign in by a link, which works once: give its session a cookie and $3 seconds.
UPDATE session
SET digest = $2, link = NULL, expires_at = now() + make_interval(secs => $3), agent = $4,
    remote = $5
WHERE link = $1 AND ended_at IS NULL AND expires_at > now()
RETURNING *;

-- name: list_sessions
-- Return $2 signed-in sessions with ids below $1, newest first; of token $3 alone, or of the person
-- $4, if it is given.
SELECT * FROM session
WHERE id < $1 AND ended_at IS NULL AND expires_at > now() AND digest IS NOT NULL
    AND ($3::uuid IS NULL OR token = $3)
    AND ($4::text IS NULL OR name = $4 AND role IS NOT NULL)
ORDER BY id DESC LIMIT $2;

-- name: end_session
-- End a session and return it; of token $2 alone, or of the person $3, if it is given. An earlier end
-- keeps its time.
UPDATE session SET ended_at = coalesce(ended_at, now()), link = NULL
WHERE id = $1 AND ($2::uuid IS NULL OR token = $2)
    AND ($3::text IS NULL OR name = $3 AND role IS NOT NULL)
RETURNING *;

-- name: record_session_uses
-- Record when sessions were last used, at most once a minute each.
UPDATE session SET used_at = n.at
FROM unnest($1::uuid[], $2::timestamptz[]) AS n (id, at)
WHERE session.id = n.id AND (session.used_at IS NULL OR session.used_at < n.at - interval '1 minute');

-- name: prune_sessions
-- Delete sessions that expired a day ago; the audit log says who had signed in.
DELETE FROM session WHERE expires_at < now() - interval '1 day';
