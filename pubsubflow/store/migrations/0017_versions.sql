-- DAGs that run behind what their file defines, and versions that take a share of the runs.

-- DAGs that are pinned to a version. The triggers below keep it in force whatever a loader writes,
-- so that loaders of before keep it, too: these put each version that they import in force.
CREATE TABLE dag_pin (
    dag         int PRIMARY KEY REFERENCES dag ON DELETE CASCADE,
    version     bigint NOT NULL,
    source      text NOT NULL,           -- the bundle and version that new runs are pinned to
    newest      bigint NOT NULL,         -- the version that the file defines
    pinned_at   timestamptz NOT NULL DEFAULT now(),
    pinned_by   text NOT NULL
);

CREATE FUNCTION keep_pinned_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- 0: no file defines the DAG any more.
    IF NEW.version = 0 OR NEW.version = OLD.version THEN
        RETURN NEW;
    END IF;
    UPDATE dag_pin SET newest = NEW.version WHERE dag = NEW.id AND version <> NEW.version;
    RETURN CASE WHEN FOUND THEN NULL ELSE NEW END;
END $$;
CREATE TRIGGER keep_pinned_version BEFORE UPDATE OF version ON dag
FOR EACH ROW EXECUTE FUNCTION keep_pinned_version();

CREATE FUNCTION keep_pinned_source() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.source := coalesce((SELECT source FROM dag_pin WHERE dag = NEW.dag), NEW.source);
    RETURN NEW;
END $$;
CREATE TRIGGER keep_pinned_source BEFORE UPDATE OF source ON dag_state
FOR EACH ROW EXECUTE FUNCTION keep_pinned_source();

CREATE FUNCTION keep_pinned_bundle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM dag_pin WHERE dag = NEW.dag AND version = NEW.id) THEN
        NEW.bundle := OLD.bundle;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_pinned_bundle BEFORE UPDATE OF bundle ON dag_version
FOR EACH ROW EXECUTE FUNCTION keep_pinned_bundle();

-- The version that takes a share of new runs, with the share (0 to 1) and what its runs are pinned
-- to; null without one. The DAG is pinned to the version that takes the others.
ALTER TABLE dag_state
    ADD COLUMN canary bigint,
    ADD COLUMN canary_share float8,
    ADD COLUMN canary_source text,
    ADD COLUMN canary_since timestamptz;

-- DAGs that people have deleted and whose runs are being removed. Their row in `dag` has another name
-- by then, so that a file may define one of the old name at once.
CREATE TABLE dag_deletion (
    dag         int PRIMARY KEY REFERENCES dag,
    dag_id      text NOT NULL,           -- the name that it had
    deleted_at  timestamptz NOT NULL DEFAULT now(),
    deleted_by  text NOT NULL
);
