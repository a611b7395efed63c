-- Webhooks, written by the loader and read by the API.

-- name: delete_webhooks
-- Delete the webhooks of files $1 other than those named $2.
DELETE FROM webhook WHERE file = ANY($1::text[]) AND NOT name = ANY($2::text[]);

-- name: save_webhooks
-- Insert or update the webhooks that files declare.
INSERT INTO webhook (name, file, spec)
SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])
ON CONFLICT (name) DO UPDATE SET file = excluded.file, spec = excluded.spec
WHERE (webhook.file, webhook.spec) IS DISTINCT FROM (excluded.file, excluded.spec);

-- name: list_webhooks
-- Return all webhooks.
SELECT name, file, spec FROM webhook ORDER BY name;
