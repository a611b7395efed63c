-- Freshness: datasets that are to have an event within a time.

-- name: delete_freshness_files
-- Delete the declarations of the files $1, and return how many there were.
WITH gone AS (DELETE FROM freshness_file WHERE file = ANY($1::text[]) RETURNING file)
SELECT count(*) FROM gone;

-- name: save_freshness_files
-- Insert declarations: dataset, file, bundle, seconds, names of callbacks by line.
INSERT INTO freshness_file (dataset, file, bundle, seconds, callbacks)
SELECT dataset, file, bundle, seconds, string_to_array(names, E'\n')
FROM unnest($1::text[], $2::text[], $3::text[], $4::float8[], $5::text[])
  AS n (dataset, file, bundle, seconds, names);

-- name: pin_freshness_files
-- Pin the callbacks of files $2 to the bundle $1, and return how many declarations that are.
WITH pinned AS (
    UPDATE freshness_file SET bundle = $1
    WHERE file = ANY($2::text[]) AND bundle <> $1
    RETURNING file
)
SELECT count(*) FROM pinned;

-- name: put_freshness_in_force
-- Put the declaration of each dataset in force that has the shortest time; end the alerts of datasets
-- that no file declares. What has changed is looked at at once.
WITH declared AS (
    SELECT DISTINCT ON (dataset) dataset, file, bundle, seconds, callbacks
    FROM freshness_file
    ORDER BY dataset, seconds, cardinality(callbacks) = 0, file
), dropped AS (
    DELETE FROM freshness
    WHERE NOT EXISTS (SELECT FROM declared WHERE declared.dataset = freshness.dataset)
    RETURNING dataset
), forgotten AS (
    DELETE FROM freshness_look USING dropped WHERE freshness_look.dataset = dropped.dataset
    RETURNING freshness_look.alert
), ended AS (
    UPDATE alert SET ended_at = now(), ending = 'no file declares fresh= for the dataset'
    FROM forgotten WHERE alert.id = forgotten.alert AND alert.ended_at IS NULL
), looks AS (
    INSERT INTO freshness_look (dataset) SELECT dataset FROM declared ON CONFLICT DO NOTHING
)
INSERT INTO freshness (dataset, file, bundle, seconds, callbacks, due_at)
SELECT dataset, file, bundle, seconds, callbacks, now() FROM declared
ON CONFLICT (dataset) DO UPDATE SET
    file = excluded.file, bundle = excluded.bundle, seconds = excluded.seconds,
    callbacks = excluded.callbacks,
    due_at = CASE
        -- A stale one is looked at anyway.
        WHEN freshness.seconds = excluded.seconds OR freshness.due_at = 'infinity'
        THEN freshness.due_at ELSE now()
    END
WHERE (freshness.file, freshness.bundle, freshness.seconds, freshness.callbacks)
      IS DISTINCT FROM (excluded.file, excluded.bundle, excluded.seconds, excluded.callbacks);

-- name: note_gone_freshness_files
-- Note since when the files of declarations are not there.
UPDATE freshness_file SET gone_at = n.gone_at
FROM (
    SELECT dataset, file, CASE
        WHEN EXISTS (SELECT FROM dag_file WHERE dag_file.file = f.file) THEN NULL
        ELSE least(coalesce(f.gone_at, now()), now())
    END AS gone_at
    FROM freshness_file AS f
) AS n
WHERE freshness_file.dataset = n.dataset AND freshness_file.file = n.file
  AND freshness_file.gone_at IS DISTINCT FROM n.gone_at;

-- name: delete_gone_freshness_files
-- Delete the declarations of files that are gone for $1 seconds; return how many, and in how many
-- seconds the next one is due.
WITH gone AS (
    DELETE FROM freshness_file WHERE gone_at <= now() - make_interval(secs => $1::float8)
    RETURNING file
)
SELECT (SELECT count(*) FROM gone) AS deleted,
       (SELECT extract(epoch FROM min(gone_at) - now())::float8 + $1::float8 FROM freshness_file
        WHERE gone_at > now() - make_interval(secs => $1::float8)) AS left;

-- name: claim_due_freshness
-- Lock up to $1 datasets that are to be looked at, the first one first.
SELECT freshness.dataset, freshness.seconds, freshness.declared_at, look.last_event_at, look.seen,
       dataset.id AS number, now() AS now
FROM freshness
JOIN freshness_look AS look USING (dataset)
JOIN dataset ON dataset.uri = freshness.dataset
WHERE freshness.due_at <= now()
ORDER BY freshness.due_at
LIMIT $1
FOR UPDATE OF freshness SKIP LOCKED;

-- name: claim_stale_datasets
-- Lock up to $1 datasets after $2 that are stale, by URI.
SELECT freshness.dataset, freshness.seconds, freshness.declared_at, look.last_event_at, look.seen,
       dataset.id AS number, now() AS now
FROM freshness_look AS look
JOIN freshness USING (dataset)
JOIN dataset ON dataset.uri = freshness.dataset
WHERE look.alert IS NOT NULL AND look.dataset > $2
ORDER BY look.dataset
LIMIT $1
FOR UPDATE OF freshness SKIP LOCKED;

-- name: read_newest_events
-- Return the newest $3 events of datasets $1 after the events $2.
SELECT n.dataset, newest.id, newest.time, newest.recorded_at
FROM unnest($1::int[], $2::bigint[]) AS n (dataset, seen)
CROSS JOIN LATERAL (
    SELECT id, time, recorded_at FROM event
    WHERE event.dataset = n.dataset AND event.id > n.seen
    ORDER BY event.id DESC
    LIMIT $3
) AS newest
ORDER BY n.dataset, newest.id DESC;

-- name: save_freshness_looks
-- Save what looks have found: dataset, since when it is declared, moment of the last event, events
-- that are counted, when it is due; null while it is stale.
WITH n AS (
    SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::bigint[],
                         $5::timestamptz[])
      AS n (dataset, declared_at, last_event_at, seen, due_at)
), looks AS (
    UPDATE freshness_look AS look SET last_event_at = n.last_event_at, seen = n.seen
    FROM n WHERE look.dataset = n.dataset
)
UPDATE freshness SET declared_at = n.declared_at, due_at = coalesce(n.due_at, 'infinity')
FROM n WHERE freshness.dataset = n.dataset;

-- name: open_freshness_alerts
-- Open alerts about datasets that are stale, and leave the calls that follow: dataset, what is
-- missing, moment of the last event.
WITH stale AS (
    SELECT n.text, n.since, freshness.*
    FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS n (dataset, text, since)
    JOIN freshness USING (dataset)
), opened AS (
    INSERT INTO alert (kind, subject, text, dataset, since)
    SELECT 'freshness', dataset, text, dataset, since FROM stale ORDER BY dataset
    ON CONFLICT (kind, subject, key) WHERE ended_at IS NULL DO UPDATE SET since = excluded.since
    RETURNING id, dataset, xmax = 0 AS new
), noted AS (
    UPDATE freshness_look AS look SET alert = opened.id
    FROM opened WHERE look.dataset = opened.dataset
)
INSERT INTO callback (kind, position, name, outcome, bundle, file, dataset, since, alert)
SELECT 'fresh', each.position - 1, each.name, 'stale', stale.bundle, stale.file, stale.dataset,
       stale.since, opened.id
FROM opened JOIN stale USING (dataset)
CROSS JOIN unnest(stale.callbacks) WITH ORDINALITY AS each (name, position)
WHERE opened.new
ORDER BY opened.id, each.position;

-- name: end_freshness_alerts
-- End the alerts of datasets, each for a reason.
WITH fresh AS (
    SELECT * FROM unnest($1::text[], $2::text[]) AS n (dataset, ending)
), alerts AS (
    SELECT look.alert, fresh.ending FROM freshness_look AS look JOIN fresh USING (dataset)
), ended AS (
    UPDATE alert SET ended_at = now(), ending = alerts.ending
    FROM alerts WHERE alert.id = alerts.alert AND alert.ended_at IS NULL
)
UPDATE freshness_look AS look SET alert = NULL FROM fresh WHERE look.dataset = fresh.dataset;

-- name: mend_freshness
-- Have datasets looked at that would be later than they can be due: the clock was set back.
UPDATE freshness SET due_at = now()
WHERE due_at > now() + make_interval(secs => seconds) AND due_at < 'infinity';

-- name: read_next_freshness
-- Return in how many seconds the next dataset is to be looked at, and whether some are stale.
SELECT (SELECT extract(epoch FROM due_at - now())::float8 FROM freshness
        WHERE due_at < 'infinity' ORDER BY due_at LIMIT 1) AS seconds,
       EXISTS (SELECT FROM freshness_look WHERE alert IS NOT NULL) AS stale;
