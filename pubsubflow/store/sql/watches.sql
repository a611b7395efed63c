-- Watched datasets, as files declare them; called under the lock of the catalog.

-- name: save_watches
-- Make triggers of watched datasets (uri, name, data) that are not; those that stay go on where
-- they are.
INSERT INTO trigger (kind, name, data, dataset)
SELECT DISTINCT 'watch', n.name, n.data, dataset.id
FROM unnest($1::text[], $2::text[], $3::bytea[]) AS n (uri, name, data)
JOIN dataset USING (uri)
ON CONFLICT (dataset, name, md5(data)) WHERE kind = 'watch' DO NOTHING;

-- name: forget_watch_files
-- The files $1 declare no watch any more, unless they are declared anew.
DELETE FROM watch_file WHERE file = ANY($1::text[]);

-- name: link_watches
-- Note which files declare watches: file, uri, name, data.
INSERT INTO watch_file (trigger, file)
SELECT trigger.id, n.file
FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) AS n (file, uri, name, data)
JOIN dataset USING (uri)
JOIN trigger ON trigger.dataset = dataset.id AND trigger.name = n.name
            AND md5(trigger.data) = md5(n.data) AND trigger.kind = 'watch'
ON CONFLICT DO NOTHING;

-- name: drop_unwatched
-- Remove the triggers of datasets that no file watches any more.
DELETE FROM trigger
WHERE kind = 'watch' AND NOT EXISTS (SELECT FROM watch_file WHERE watch_file.trigger = trigger.id);
