-- Webhooks, as the loader writes them and the API reads them.

-- name: drop_hooks
-- Forget the webhooks of files $1 other than those named $2.
DELETE FROM hook WHERE file = ANY($1::text[]) AND NOT name = ANY($2::text[]);

-- name: save_hooks
-- Record webhooks as files declare them.
INSERT INTO hook (name, file, spec)
SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])
ON CONFLICT (name) DO UPDATE SET file = excluded.file, spec = excluded.spec
WHERE (hook.file, hook.spec) IS DISTINCT FROM (excluded.file, excluded.spec);

-- name: list_hooks
-- Return all webhooks.
SELECT name, file, spec FROM hook ORDER BY name;
