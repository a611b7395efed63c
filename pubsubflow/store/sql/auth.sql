-- API tokens and the audit log.

-- name: create_token
-- Create a token; return no row if a token that is not revoked has the name.
INSERT INTO token (id, name, role, digest, datasets, created_by, expires_at, grants)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING
RETURNING *;

-- name: list_credentials
-- Return the tokens that are neither revoked nor expired, the sessions that have signed in and have
-- neither ended nor expired, and a row `created` if any token exists, revoked ones included.
SELECT 'token' AS kind, id, name, role, digest, datasets, expires_at, grants,
       NULL::uuid AS token, false AS owner
FROM token WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
UNION ALL
SELECT 'session', id, name, role, digest, NULL, expires_at, grants, token, owner
FROM session WHERE expires_at > now() AND ended_at IS NULL AND digest IS NOT NULL
UNION ALL
SELECT 'created', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
WHERE EXISTS (SELECT FROM token);

-- name: list_tokens
-- Return $2 tokens with ids below $1, newest first.
SELECT * FROM token WHERE id < $1 ORDER BY id DESC LIMIT $2;

-- name: find_token
-- Return the token with this id, or else the unrevoked token with this name.
SELECT id FROM token WHERE id::text = $1 OR name = $1 AND revoked_at IS NULL
ORDER BY id::text = $1 DESC LIMIT 1;

-- name: revoke_token
-- Revoke a token and return it; an earlier revocation keeps its time.
UPDATE token SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 RETURNING *;

-- name: record_token_uses
-- Record when tokens were last used, at most once a minute each.
UPDATE token SET used_at = n.at
FROM unnest($1::uuid[], $2::timestamptz[]) AS n (id, at)
WHERE token.id = n.id AND (token.used_at IS NULL OR token.used_at < n.at - interval '1 minute');

-- name: record_audit_entry
-- Append an entry to the audit log and return its id.
INSERT INTO audit (principal, token, remote, action, object, status, times)
VALUES ($1, $2, $3, $4, $5, $6, $7)
RETURNING id;

-- name: finish_audit_entries
-- Record the statuses of audited actions, and their objects if these are known only now.
UPDATE audit SET status = n.status, object = coalesce(n.object, audit.object)
FROM unnest($1::bigint[], $2::int[], $3::text[]) AS n (id, status, object)
WHERE audit.id = n.id;

-- name: list_audit_entries
-- Return $2 audit entries with ids below $1, newest first.
SELECT id, at, principal, token, remote, action, object, status, times FROM audit
WHERE id < $1
ORDER BY id DESC LIMIT $2;

-- name: list_audit_entries_of
-- Return $2 audit entries of principal $3 with ids below $1, newest first.
SELECT id, at, principal, token, remote, action, object, status, times FROM audit
WHERE principal = $3 AND id < $1
ORDER BY id DESC LIMIT $2;

-- name: prune_audit_entries
-- Delete audit entries older than $1 seconds.
DELETE FROM audit WHERE at < now() - make_interval(secs => $1);
