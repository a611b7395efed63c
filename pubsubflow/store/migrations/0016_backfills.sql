-- Backfills: the runs of past ticks or partitions, made as there is room for them.

-- A plan is a rule, not a list: a row holds one of any length. All of it changes under the lock of
-- the DAG, with the runs that are made: so each planned run is decided about once.
CREATE TABLE backfill (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    backfill_id uuid NOT NULL UNIQUE,
    dag         int NOT NULL REFERENCES dag,
    state       text NOT NULL,           -- running, paused, completed, cancelled
    open        boolean NOT NULL DEFAULT true, -- it has runs to make, or runs that have not ended
    reason      text,                    -- why it is paused or cancelled
    plan        bytea,                   -- its ticks, encoded; null for partitions
    partitions  text[],
    newest_first boolean NOT NULL,
    reprocess   text NOT NULL,           -- missing, failed, all
    max_active  int,                     -- null: its runs count against max_active_runs of the DAG
    params      jsonb,
    description text,
    planned     int NOT NULL,            -- how many runs the plan has
    decided     int NOT NULL DEFAULT 0,  -- of these, which were made or found to exist
    made        int NOT NULL DEFAULT 0,
    reached     timestamptz,             -- the last tick that was decided about
    created_by  text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    advanced_at timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz
);
CREATE INDEX backfill_by_dag ON backfill (dag, backfill_id);
CREATE INDEX backfill_open ON backfill (dag) WHERE open;

-- The runs that a backfill has made.
CREATE TABLE backfill_run (
    run         bigint PRIMARY KEY,
    backfill    bigint NOT NULL REFERENCES backfill ON DELETE CASCADE,
    dag         int NOT NULL,
    ended       boolean NOT NULL DEFAULT false, -- it has made room for another one
    made_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX backfill_run_by_backfill ON backfill_run (backfill);
CREATE INDEX backfill_run_live ON backfill_run (dag) WHERE NOT ended;

-- backfills: the open ones of a DAG. apart: those active runs that a limit of their backfill counts,
-- not max_active_runs.
ALTER TABLE dag_state
    ADD COLUMN backfills int NOT NULL DEFAULT 0,
    ADD COLUMN apart     int NOT NULL DEFAULT 0;
