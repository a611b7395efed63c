-- What tasks of Airflow's files leave at once and keep, while they run and after it.

-- Values that others may read before the attempt has ended (kind early), until then; and values that
-- the attempts of a task keep (kind kept).
CREATE TABLE task_value (
    run         bigint NOT NULL,
    node        int NOT NULL,
    map_index   int NOT NULL,
    kind        text NOT NULL,           -- early, kept
    key         text NOT NULL,
    attempt     int NOT NULL,            -- the one that left it
    value       bytea NOT NULL,          -- early: MessagePack; kept: JSON
    expires_at  timestamptz,
    PRIMARY KEY (run, node, map_index, kind, key)
);

-- Values that a dataset keeps.
CREATE TABLE dataset_value (
    dataset     int NOT NULL REFERENCES dataset,
    key         text NOT NULL,
    value       text NOT NULL,           -- JSON
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dataset, key)
);
