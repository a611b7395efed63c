-- Tasks that wait for the previous run of their DAG (depends_on_past), until they start.

CREATE TABLE past_wait (
    run         bigint NOT NULL,
    node        int NOT NULL,
    on_run      bigint,                  -- the previous run; null until it was looked up
    on_task     text,                    -- which task of it
    checked_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run, node)
);
CREATE INDEX past_wait_by_run ON past_wait (on_run);

-- The previous run by logical time.
CREATE INDEX run_by_logical_time ON run (dag, logical_time) WHERE logical_time IS NOT NULL;
