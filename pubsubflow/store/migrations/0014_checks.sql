-- Checks: events that are held, and what checks have found.

-- Events of datasets with blocking checks, from when they came until they are released into the log
-- or discarded. `id` is of the same sequence as positions in the log; the position is that of the
-- release.
CREATE TABLE held_event (
    id          bigint PRIMARY KEY,
    event_id    uuid NOT NULL UNIQUE,
    dataset     int NOT NULL,
    extra       jsonb NOT NULL,
    partition   text,
    time        timestamptz NOT NULL,
    source      text NOT NULL,
    run         bigint,                  -- of the task that emitted it
    node        int,
    map_index   int,
    ancestry    int[] NOT NULL DEFAULT '{}',
    trace       text,
    held_at     timestamptz NOT NULL,
    discarded_at timestamptz,
    discarded_by text,
    note        text                     -- why it was discarded
);
CREATE INDEX held_event_by_dataset ON held_event (dataset, id);
CREATE INDEX held_event_discarded ON held_event (discarded_at) WHERE discarded_at IS NOT NULL;

-- What checks have found: a row an event and check, made when the event came.
CREATE TABLE check_result (
    id          bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    event       bigint NOT NULL,         -- its number when it came
    dag         int NOT NULL,            -- the DAG that the check is
    event_id    uuid NOT NULL,
    dataset     int NOT NULL,
    blocking    boolean NOT NULL,
    holding     boolean NOT NULL,        -- it keeps the event from being released
    outcome     text NOT NULL DEFAULT 'waiting', -- waiting, passed, failed, error, removed
    severity    text NOT NULL,
    description text NOT NULL DEFAULT '',
    metadata    jsonb NOT NULL DEFAULT '{}',
    tries       int NOT NULL DEFAULT 1,
    run         bigint,                  -- null while its DAG is paused
    run_id      uuid,
    created_at  timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz,
    position    bigint,                  -- of the event in the log, once it is released
    released_by text,                    -- a person, if it was released although this did not pass
    note        text,
    PRIMARY KEY (event, dag)
) WITH (fillfactor = 80);
CREATE INDEX check_result_open ON check_result (dag, event) WHERE holding OR outcome = 'waiting';
CREATE INDEX check_result_by_dag ON check_result (dag, id);
CREATE INDEX check_result_by_dataset ON check_result (dataset, id);
CREATE INDEX check_result_by_event ON check_result (event_id);
CREATE INDEX check_result_by_run ON check_result (run) WHERE run IS NOT NULL;
CREATE INDEX check_result_by_age ON check_result (created_at);
