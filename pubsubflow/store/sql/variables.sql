-- Variables.

-- name: list_variables
-- Return $2 variables after the name $1.
SELECT name, value, secret, description, key_id, ciphertext, version, updated_at
FROM variable
WHERE name > $1 ORDER BY name LIMIT $2;

-- name: read_variable
-- Return a variable.
SELECT name, value, secret, description, key_id, ciphertext, version, updated_at
FROM variable
WHERE name = $1;

-- name: read_variables
-- Return those of some variables that exist.
SELECT name, value, secret, description, key_id, ciphertext, version, updated_at
FROM variable
WHERE name = ANY($1::text[]);

-- name: save_variable
-- Insert a variable or replace the one with its name.
INSERT INTO variable (name, value, secret, description, key_id, ciphertext)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (name) DO UPDATE
SET value = excluded.value, secret = excluded.secret, description = excluded.description,
    key_id = excluded.key_id, ciphertext = excluded.ciphertext, version = excluded.version,
    updated_at = now()
RETURNING version, updated_at;

-- name: delete_variable
-- Delete a variable.
DELETE FROM variable WHERE name = $1;

-- name: list_encrypted_variables
-- Return all secret variables.
SELECT name, value, secret, description, key_id, ciphertext, version, updated_at
FROM variable
WHERE ciphertext IS NOT NULL ORDER BY name;

-- name: reencrypt_variables
-- Replace ciphertexts by those under another key.
UPDATE variable SET key_id = n.key_id, ciphertext = n.ciphertext
FROM unnest($1::text[], $2::text[], $3::bytea[]) AS n (name, key_id, ciphertext)
WHERE variable.name = n.name;
