-- Freshness of datasets: which files declare it, and what was found at the last look.

-- Declarations; of several about one dataset, the one that `freshness` has is in force.
CREATE TABLE freshness_file (
    dataset     text NOT NULL,
    file        text NOT NULL,
    bundle      text NOT NULL,
    seconds     float8 NOT NULL,
    callbacks   text[] NOT NULL DEFAULT '{}',
    gone_at     timestamptz,             -- since when the file is not there
    PRIMARY KEY (dataset, file)
);
CREATE INDEX freshness_file_by_file ON freshness_file (file);

-- A row of each in `freshness`.
CREATE TABLE freshness_look (
    dataset     text PRIMARY KEY,
    last_event_at timestamptz,           -- null: it has had none
    seen        bigint NOT NULL DEFAULT 0, -- the events up to this one have been counted
    alert       bigint                   -- the open one, while it is stale
);
CREATE INDEX freshness_look_stale ON freshness_look (dataset) WHERE alert IS NOT NULL;
