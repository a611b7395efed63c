-- Who may ask, and who did what.

-- name: create_token
-- Record a token; nothing comes if one that is not revoked has the name.
INSERT INTO token (id, name, role, digest, datasets, created_by, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING
RETURNING *;

-- name: read_live_tokens
-- Return the tokens that count.
SELECT id, name, role, digest, datasets, expires_at FROM token
WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- name: has_tokens
-- Return whether there is or ever was a token.
SELECT EXISTS (SELECT FROM token);

-- name: list_tokens
-- Return $2 tokens by age, the newest first, made before $1.
SELECT * FROM token WHERE id < $1 ORDER BY id DESC LIMIT $2;

-- name: find_token
-- Return a token by its id, or else one that is not revoked by its name.
SELECT id FROM token WHERE id::text = $1 OR name = $1 AND revoked_at IS NULL
ORDER BY id::text = $1 DESC LIMIT 1;

-- name: revoke_token
-- Let a token count no more; return it as it is then.
UPDATE token SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 RETURNING *;

-- name: note_tokens_used
-- Note when tokens were last shown.
UPDATE token SET used_at = n.at
FROM unnest($1::uuid[], $2::timestamptz[]) AS n (id, at)
WHERE token.id = n.id AND (token.used_at IS NULL OR token.used_at < n.at - interval '1 minute');

-- name: record_audit
-- Record what somebody does; return its number.
INSERT INTO audit (asker, token, remote, action, object, status, times)
VALUES ($1, $2, $3, $4, $5, $6, $7)
RETURNING id;

-- name: settle_audit
-- Record how something ended, and what it was about where only that told.
UPDATE audit SET status = $2, object = coalesce($3, object) WHERE id = $1;

-- name: list_audit
-- Return $2 of what was done before number $1, the newest first.
SELECT id, at, asker, token, remote, action, object, status, times FROM audit
WHERE id < $1
ORDER BY id DESC LIMIT $2;

-- name: list_audit_of
-- Return $2 of what asker $3 did before number $1, the newest first.
SELECT id, at, asker, token, remote, action, object, status, times FROM audit
WHERE asker = $3 AND id < $1
ORDER BY id DESC LIMIT $2;

-- name: prune_audit
-- Forget what was done more than $1 seconds ago.
DELETE FROM audit WHERE at < now() - make_interval(secs => $1);
