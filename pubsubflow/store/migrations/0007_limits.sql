-- Rate limits and concurrency keys of runs.

-- Rate limits: token buckets that tasks of all DAGs share by name. A bucket is full again at
-- `full_at` if nothing starts until then; `wake_at` is when the timer that is set for it is due.
CREATE TABLE rate_limit (
    name        text PRIMARY KEY,
    starts      int NOT NULL,
    per_seconds float8 NOT NULL,
    burst       int NOT NULL,
    full_at     timestamptz NOT NULL DEFAULT now(),
    wake_at     timestamptz,
    declared_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- A queue of a concurrency key that follows from a run goes when it is empty.
ALTER TABLE wait_queue ADD COLUMN passing boolean NOT NULL DEFAULT false;
