-- Connections and their encrypted secrets.

-- name: lock_connections
-- Lock the vault against other writers of connections and of the keyring, and return its id.
INSERT INTO connection_vault DEFAULT VALUES
ON CONFLICT (one) DO UPDATE SET one = true
RETURNING id::text;

-- name: list_connections
-- Return $2 connections after the name $1.
SELECT name, kind, uri, extra, secret_fields, key_id, ciphertext, version, updated_at, dags
FROM connection
WHERE name > $1 ORDER BY name LIMIT $2;

-- name: read_connection
-- Return a connection.
SELECT name, kind, uri, extra, secret_fields, key_id, ciphertext, version, updated_at, dags
FROM connection
WHERE name = $1;

-- name: save_connection
-- Insert a connection or replace the one with its name.
INSERT INTO connection (name, kind, uri, extra, dags, secret_fields, key_id, ciphertext)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (name) DO UPDATE
SET kind = excluded.kind, uri = excluded.uri, extra = excluded.extra,
    dags = excluded.dags, secret_fields = excluded.secret_fields, key_id = excluded.key_id,
    ciphertext = excluded.ciphertext, version = excluded.version, updated_at = now()
RETURNING version, updated_at;

-- name: delete_connection
-- Delete a connection.
DELETE FROM connection WHERE name = $1;

-- name: list_all_connections
-- Return all connections, with their encrypted secrets.
SELECT name, kind, uri, extra, secret_fields, key_id, ciphertext, version, updated_at, dags
FROM connection
ORDER BY name;

-- name: list_encrypted_connections
-- Return all connections that have secrets.
SELECT name, kind, uri, extra, secret_fields, key_id, ciphertext, version, updated_at, dags
FROM connection
WHERE ciphertext IS NOT NULL ORDER BY name;

-- name: reencrypt_connections
-- Replace ciphertexts by those under another key.
UPDATE connection SET key_id = n.key_id, ciphertext = n.ciphertext
FROM unnest($1::text[], $2::text[], $3::bytea[]) AS n (name, key_id, ciphertext)
WHERE connection.name = n.name;

-- name: list_used_keys
-- Return the ids of the keys in use, with a connection or variable of each, leaving $1 out.
SELECT key_id, min(name) AS name
FROM (
    SELECT key_id, 'connection ' || name AS name FROM connection WHERE key_id IS NOT NULL
    UNION ALL
    SELECT key_id, 'variable ' || name FROM variable WHERE key_id IS NOT NULL
) AS used
WHERE name <> $1
GROUP BY key_id;
