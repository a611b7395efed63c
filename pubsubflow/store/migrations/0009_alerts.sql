-- Callbacks of tasks, runs, deadlines and datasets; alerts.

-- Calls of functions and notifiers. A row is written in the transaction of the outcome that it is
-- about, so it is the outbox of the call.
CREATE TABLE callback (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL,           -- on_success, on_failure, on_retry, on_skipped, deadline, fresh
    number      int NOT NULL DEFAULT 0,  -- of the deadline in its DAG
    position    int NOT NULL,            -- in the list of functions
    name        text NOT NULL,           -- what is called, as people see it
    dag_id      text,
    run         bigint,
    node        int,                     -- null for a callback of the run
    task_id     text,
    map_index   int NOT NULL DEFAULT -1,
    attempt     int NOT NULL DEFAULT 0,
    outcome     text NOT NULL DEFAULT '',-- the state of the task or run
    reason      text,                    -- its error, in one line
    source      text NOT NULL DEFAULT '',-- the bundle and version of the run
    bundle      text,                    -- of a dataset: where it is declared
    file        text,
    dataset     text,
    since       timestamptz,
    alert       bigint,
    state       text NOT NULL DEFAULT 'queued', -- queued, running, success, failed
    tries       int NOT NULL DEFAULT 0,
    due_at      timestamptz NOT NULL DEFAULT now(), -- while it runs: when another daemon takes it
    error       text,
    output      text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz
);
CREATE INDEX callback_by_due ON callback (due_at) WHERE ended_at IS NULL;
CREATE INDEX callback_by_run ON callback (run, node, map_index) WHERE run IS NOT NULL;
CREATE INDEX callback_by_alert ON callback (alert) WHERE alert IS NOT NULL;
CREATE INDEX callback_by_end ON callback (ended_at) WHERE ended_at IS NOT NULL;

-- Alerts. One of a kind, subject and key is open at a time; each opening and ending is an event of
-- `pubsubflow://alerts/<kind>/<subject>`, recorded when `announced` falls behind.
CREATE TABLE alert (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL,           -- deadline, fresh, callback
    subject     text NOT NULL,           -- a DAG, or a dataset
    key         text NOT NULL DEFAULT '',
    text        text NOT NULL,
    dag_id      text,
    run         bigint,
    dataset     text,
    since       timestamptz,
    opened_at   timestamptz NOT NULL DEFAULT now(),
    acknowledged_at timestamptz,
    acknowledged_by text,
    ended_at    timestamptz,
    ending      text,                    -- why it has ended
    announced   int NOT NULL DEFAULT 0   -- 1: its opening is an event; 2: its end, too
);
CREATE UNIQUE INDEX alert_open ON alert (kind, subject, key) WHERE ended_at IS NULL;
CREATE INDEX alert_unannounced ON alert (id)
    WHERE announced = 0 OR announced = 1 AND ended_at IS NOT NULL;
CREATE INDEX alert_by_run ON alert (run) WHERE run IS NOT NULL;

-- Datasets that are to have an event within a time, as DAG files declare it. `due_at` is looked at
-- then: the moment moves on lazily, no event touches the row.
CREATE TABLE freshness (
    dataset     text PRIMARY KEY,
    file        text NOT NULL,
    bundle      text NOT NULL,
    seconds     float8 NOT NULL,
    callbacks   text[] NOT NULL DEFAULT '{}',
    declared_at timestamptz NOT NULL DEFAULT now(),
    due_at      timestamptz NOT NULL
);
CREATE INDEX freshness_by_due ON freshness (due_at);
