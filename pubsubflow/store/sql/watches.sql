-- Watched datasets that DAG files declare; run under the lock of the catalog.

-- name: save_watches
-- Insert triggers of watched datasets (URI, name, data); those that exist keep their position.
INSERT INTO trigger (kind, name, data, dataset)
SELECT DISTINCT 'watch', n.name, n.data, dataset.id
FROM unnest($1::text[], $2::text[], $3::bytea[]) AS n (uri, name, data)
JOIN dataset USING (uri)
ON CONFLICT (dataset, name, md5(data)) WHERE kind = 'watch' DO NOTHING;

-- name: delete_watch_files
-- Delete the declarations of watches in the files $1.
DELETE FROM watch_file WHERE file = ANY($1::text[]);

-- name: save_watch_files
-- Record which files declare which watches: file, URI, name, data.
INSERT INTO watch_file (trigger, file)
SELECT trigger.id, n.file
FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) AS n (file, uri, name, data)
JOIN dataset USING (uri)
JOIN trigger ON trigger.dataset = dataset.id AND trigger.name = n.name
            AND md5(trigger.data) = md5(n.data) AND trigger.kind = 'watch'
ON CONFLICT DO NOTHING;

-- name: delete_unwatched_triggers
-- Delete the triggers of watches that no file declares.
DELETE FROM trigger
WHERE kind = 'watch' AND NOT EXISTS (SELECT FROM watch_file WHERE watch_file.trigger = trigger.id);
