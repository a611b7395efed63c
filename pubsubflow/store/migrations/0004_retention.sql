-- Output of tasks in an object store, and the age of condition states.

-- When a condition last changed: a partition that has nothing pending, and no run, is forgotten
-- after a time.
ALTER TABLE condition_state ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now();
CREATE INDEX run_by_partition ON run (dag, partition) WHERE partition IS NOT NULL;

-- Output of ended attempts that is in the log store: which chunks each of its files has.
CREATE TABLE log_object (
    run         bigint NOT NULL,
    node        int NOT NULL,
    map_index   int NOT NULL,
    attempt     int NOT NULL,
    delivery    bigint NOT NULL,
    last_sequence int NOT NULL,
    sequences   int[] NOT NULL,          -- of its chunks, in order
    lines       int[] NOT NULL,          -- number of lines of each chunk
    bytes       int NOT NULL,            -- of the file
    name        text NOT NULL,           -- below the store's URL
    PRIMARY KEY (run, node, map_index, attempt, delivery, last_sequence)
) PARTITION BY RANGE (run);

CREATE OR REPLACE FUNCTION sliced_tables(series text) RETURNS text[] LANGUAGE sql IMMUTABLE
RETURN CASE series
    WHEN 'event' THEN '{event,event_outcome}'::text[]
    WHEN 'run' THEN '{log,log_object,attempt,journal_entry,task,run_event}'::text[]
END;

DO $$
DECLARE
    part record;
BEGIN
    FOR part IN SELECT number::bigint AS number FROM slice WHERE series = 'run' LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF log_object FOR VALUES FROM (%s) TO (%s)',
                       'log_object_s' || part.number, part.number << 32, (part.number + 1) << 32);
    END LOOP;
END $$;
