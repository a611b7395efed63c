-- Connections and their encrypted secrets.

-- name: lock_connections
-- Let nobody else write connections or the key file until the transaction ends; return the vault.
INSERT INTO connection_vault DEFAULT VALUES
ON CONFLICT (one) DO UPDATE SET one = true
RETURNING id::text;

-- name: list_connections
-- Return connections after $1 by name, at most $2.
SELECT name, kind, uri, extra, secret_fields, key, sealed, version, updated_at FROM connection
WHERE name > $1 ORDER BY name LIMIT $2;

-- name: read_connection
-- Return a connection.
SELECT name, kind, uri, extra, secret_fields, key, sealed, version, updated_at FROM connection
WHERE name = $1;

-- name: save_connection
-- Write a connection in place of the one that has its name.
INSERT INTO connection (name, kind, uri, extra, secret_fields, key, sealed)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (name) DO UPDATE
SET kind = excluded.kind, uri = excluded.uri, extra = excluded.extra,
    secret_fields = excluded.secret_fields, key = excluded.key, sealed = excluded.sealed,
    version = excluded.version, updated_at = now()
RETURNING version, updated_at;

-- name: delete_connection
-- Forget a connection.
DELETE FROM connection WHERE name = $1;

-- name: read_sealed_connections
-- Return all connections that have secrets.
SELECT name, kind, uri, extra, secret_fields, key, sealed, version, updated_at FROM connection
WHERE sealed IS NOT NULL ORDER BY name;

-- name: reseal_connections
-- Replace secrets by the same ones, encrypted with another key.
UPDATE connection SET key = n.key, sealed = n.sealed
FROM unnest($1::text[], $2::text[], $3::bytea[]) AS n (name, key, sealed)
WHERE connection.name = n.name;

-- name: find_used_keys
-- Return the ids of keys that secrets are encrypted with, but for those of connection $1; each with
-- the name of a connection.
SELECT key, min(name) AS name FROM connection WHERE key IS NOT NULL AND name <> $1 GROUP BY key;
