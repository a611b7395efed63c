-- The schema. UUIDs are the public ids; bigints are internal.
-- The tables of unfinished work (dag_state, run_live, task_live, pending_event, timer) stay small.
-- No index covers a column that a hot update changes, so those updates are heap-only (HOT).

-- Datasets by URI, with what DAG files declare about them.
CREATE TABLE dataset (
    id          int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uri         text NOT NULL UNIQUE,
    name        text,
    group_name  text,
    extra       jsonb NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- Files of bundles, by the SHA-256 of their content; see ADR 19.
CREATE TABLE source_file (
    hash        text PRIMARY KEY,
    data        bytea NOT NULL
);

-- Bundles: which files stand under which paths.
CREATE TABLE bundle (
    hash        text PRIMARY KEY,
    manifest    bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- DAG files, with the error of the last import, if any.
CREATE TABLE dag_file (
    file        text PRIMARY KEY,
    source      text NOT NULL,           -- hash of all that its import read
    error       text,
    traceback   text,
    import_seconds float8 NOT NULL DEFAULT 0,
    read_at     timestamptz NOT NULL DEFAULT now()
);

-- Webhooks that DAG files declare; those of a file that cannot be imported stay in force.
CREATE TABLE webhook (
    name        text PRIMARY KEY,
    file        text NOT NULL,
    spec        bytea NOT NULL
);

-- Connections ---------------------------------------------------------------------------------

-- Connections to external systems, their secrets encrypted. The plain columns are the associated
-- data of the encryption, so they are texts that come back exactly as they were written.
CREATE SEQUENCE connection_version;
CREATE TABLE connection (
    name        text PRIMARY KEY,
    kind        text NOT NULL,
    uri         text,
    extra       text NOT NULL,           -- a JSON object
    secret_fields text[] NOT NULL,
    key_id      text,                    -- a key of the keyring
    ciphertext  bytea,
    version     bigint NOT NULL DEFAULT nextval('connection_version'),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CHECK ((key_id IS NULL) = (ciphertext IS NULL))
);

-- The one row that writers of connections and of the keyring lock; its id marks this database's
-- keys in a keyring that several databases share.
CREATE TABLE connection_vault (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    id          uuid NOT NULL DEFAULT gen_random_uuid()
);

-- Authorization and audit ---------------------------------------------------------------------

-- API tokens, stored as SHA-256; a name is unique among the tokens that are not revoked.
CREATE TABLE token (
    id          uuid PRIMARY KEY,
    name        text NOT NULL,
    role        text NOT NULL CHECK (role IN ('viewer', 'emitter', 'operator', 'admin')),
    digest      bytea NOT NULL UNIQUE,
    datasets    text[] NOT NULL DEFAULT '{}',  -- patterns that limit an emitter
    created_at  timestamptz NOT NULL DEFAULT now(),
    created_by  text NOT NULL,
    expires_at  timestamptz,
    used_at     timestamptz,
    revoked_at  timestamptz
);
CREATE UNIQUE INDEX token_name ON token (name) WHERE revoked_at IS NULL;

-- The audit log: each entry is written before the action, its status after it.
CREATE TABLE audit (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now(),
    principal   text NOT NULL,
    token       uuid,
    remote      text,
    action      text NOT NULL,
    object      text,
    status      int,
    times       int NOT NULL DEFAULT 1
);
CREATE INDEX audit_by_time ON audit USING brin (at) WITH (pages_per_range = 16);
CREATE INDEX audit_by_principal ON audit (principal, id);

-- DAGs and schedules --------------------------------------------------------------------------

-- DAGs by name; `version` is the dag_version in force, 0 when the DAG is not in its file any more.
CREATE TABLE dag (
    id          int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dag_id      text NOT NULL UNIQUE,
    file        text NOT NULL,
    present     boolean NOT NULL DEFAULT true,
    version     bigint NOT NULL DEFAULT 0,
    retired_at  timestamptz,             -- since when it was last gone for good, until `returned_at`
    returned_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX dag_by_file ON dag (file);

-- Immutable specs of DAGs, numbered per DAG.
CREATE TABLE dag_version (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dag         int NOT NULL REFERENCES dag,
    number      int NOT NULL,
    hash        text NOT NULL,
    spec        bytea NOT NULL,
    bundle      text NOT NULL DEFAULT '', -- the last one in which it was in force
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (dag, hash)
);

-- The lock of a DAG's schedule and the state that scheduling needs.
-- catch_up_from: the first event that the schedule has not processed (a new subscription, or a
-- pause that keeps events); it processes none of the later ones before it has caught up.
CREATE TABLE dag_state (
    dag         int PRIMARY KEY REFERENCES dag,
    version     bigint NOT NULL,
    source      text NOT NULL DEFAULT '', -- what new runs are pinned to: bundle and version
    missing_since timestamptz,           -- its file, or it in its file, is gone since then
    paused      boolean NOT NULL DEFAULT false,
    active      int NOT NULL DEFAULT 0,  -- running runs
    queued      int NOT NULL DEFAULT 0,  -- runs in run_queue
    catch_up_from bigint,
    edits       int NOT NULL DEFAULT 0   -- changes by people: a part of the DAG's revision
) WITH (fillfactor = 50);
CREATE INDEX dag_state_missing ON dag_state (missing_since) WHERE missing_since IS NOT NULL;

-- The state of a DAG's condition, per partition ('' without partitions).
-- open: events are pending or a run is collecting.
CREATE TABLE condition_state (
    dag         int NOT NULL REFERENCES dag,
    partition_key text NOT NULL,
    state       bytea NOT NULL,
    open        boolean NOT NULL,
    PRIMARY KEY (dag, partition_key)
) WITH (fillfactor = 50);

-- Subscriptions of DAGs to all datasets whose URI matches, existing and future.
CREATE TABLE pattern_subscription (
    dag         int NOT NULL REFERENCES dag,
    pattern     text NOT NULL,
    expression  text NOT NULL,           -- the pattern as a regular expression
    PRIMARY KEY (dag, pattern)
);

-- Subscriptions of DAGs to datasets, those that patterns have resolved to included.
CREATE TABLE dag_subscription (
    dataset     int NOT NULL REFERENCES dataset,
    dag         int NOT NULL REFERENCES dag,
    PRIMARY KEY (dataset, dag)
);
CREATE INDEX dag_subscription_by_dag ON dag_subscription (dag);

-- Events --------------------------------------------------------------------------------------

-- The log of dataset events; `id` is the position.
CREATE SEQUENCE event_id;
CREATE TABLE event (
    id          bigint PRIMARY KEY,
    event_id    uuid NOT NULL,
    dataset     int NOT NULL,
    extra       jsonb NOT NULL,
    partition   text,
    time        timestamptz NOT NULL,
    source      text NOT NULL,
    run         bigint,                  -- of the task that emitted it
    node        int,
    map_index   int,
    ancestry    int[] NOT NULL DEFAULT '{}', -- the DAGs whose runs led to it, from the origin on
    recorded_at timestamptz NOT NULL DEFAULT now(),
    trace       text                     -- W3C trace context of the span that emitted it
) PARTITION BY RANGE (id);
CREATE INDEX event_by_time ON event (recorded_at);
CREATE INDEX event_by_dataset ON event (dataset, id);
CREATE INDEX event_by_run ON event (run) WHERE run IS NOT NULL;

-- Idempotency keys of posted events; the same key again gives the first event.
CREATE TABLE idempotency_key (
    key         text PRIMARY KEY,
    event_id    uuid NOT NULL,
    body        bytea,                   -- of a request's key: digest of the request's body
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idempotency_key_by_time ON idempotency_key (created_at);

-- Events that an input of a DAG's condition has not consumed yet.
CREATE TABLE pending_event (
    dag         int NOT NULL,
    partition_key text NOT NULL,
    input       smallint NOT NULL,
    event       bigint NOT NULL,
    PRIMARY KEY (dag, partition_key, input, event)
);
CREATE INDEX pending_event_by_event ON pending_event (event);

-- Outcomes of events that a DAG's input will not consume: filtered, expired, skipped or dead.
CREATE TABLE event_outcome (
    event       bigint NOT NULL,
    dag         int NOT NULL,
    input       smallint NOT NULL,
    partition_key text NOT NULL DEFAULT '',
    outcome     text NOT NULL,
    reason      text NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event, dag, input, partition_key)
) PARTITION BY RANGE (event);
CREATE INDEX event_outcome_by_dag ON event_outcome (dag, event);

-- Runs ----------------------------------------------------------------------------------------

-- DAG runs; `run_key` is what makes the creation of one idempotent.
CREATE SEQUENCE run_number INCREMENT BY 1000;
CREATE TABLE run (
    id          bigint PRIMARY KEY,
    run_id      uuid NOT NULL UNIQUE,
    dag         int NOT NULL,
    version     bigint NOT NULL,
    run_key     text NOT NULL,
    kind        text NOT NULL,
    state       text NOT NULL,
    params      jsonb NOT NULL,
    logical_time timestamptz,
    partition   text,
    cause       text NOT NULL,
    error       text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    started_at  timestamptz,
    ended_at    timestamptz,
    clear_number int NOT NULL DEFAULT 0, -- how often tasks of it were cleared
    clear_id    uuid,                    -- the request that cleared tasks last
    source      text NOT NULL DEFAULT '', -- the bundle and version that it is pinned to
    UNIQUE (dag, run_key)
) WITH (fillfactor = 80);
CREATE INDEX run_by_dag ON run (dag, run_id);

-- Progress of running runs, and the part of a run that its tasks see (RunInfo).
CREATE TABLE run_live (
    run         bigint PRIMARY KEY,
    dag         int NOT NULL,
    version     bigint NOT NULL,
    progress    bytea NOT NULL,
    info        bytea NOT NULL,
    source      text NOT NULL DEFAULT ''
) WITH (fillfactor = 50);

-- Queued runs, over their DAG's max_active_runs, in order.
CREATE TABLE run_queue (
    position    bigint GENERATED ALWAYS AS IDENTITY,
    dag         int NOT NULL,
    run         bigint NOT NULL,
    info        bytea NOT NULL,
    progress    bytea,                   -- of a run that continues after tasks of it were cleared
    PRIMARY KEY (dag, position)
);
CREATE INDEX run_queue_by_run ON run_queue (run);

-- Events that runs consumed, with the input that consumed each.
CREATE TABLE run_event (
    run         bigint NOT NULL,
    event       bigint NOT NULL,
    input       smallint NOT NULL,
    PRIMARY KEY (run, event, input)
) PARTITION BY RANGE (run);
CREATE INDEX run_event_by_event ON run_event (event);

-- Tasks -----------------------------------------------------------------------------------------

-- Unfinished task instances. A row in state `queued` stands for its undelivered message. `chained`
-- rows were started by the runner that finished the upstream task: no message covers them.
CREATE TABLE task_live (
    run         bigint NOT NULL,
    node        int NOT NULL,
    map_index   int NOT NULL,
    attempt     int NOT NULL,
    delivery    bigint NOT NULL,
    crashes     int NOT NULL DEFAULT 0,
    state       text NOT NULL,
    chained     boolean NOT NULL DEFAULT false,
    worker      text,
    queued_at   timestamptz NOT NULL DEFAULT now(),
    started_at  timestamptz,
    wait_set    bytea,                   -- of a deferred task
    prior_attempts int NOT NULL DEFAULT 0, -- attempts before it was cleared: they cost no retry
    PRIMARY KEY (run, node, map_index)
) WITH (fillfactor = 50);

-- Finished task instances.
CREATE TABLE task (
    run         bigint NOT NULL,
    node        int NOT NULL,
    map_index   int NOT NULL,
    attempt     int NOT NULL,
    state       text NOT NULL,
    worker      text,
    queued_at   timestamptz,
    started_at  timestamptz,
    ended_at    timestamptz NOT NULL,
    length      int,
    result      bytea,
    error       jsonb,
    PRIMARY KEY (run, node, map_index)
) PARTITION BY RANGE (run);

-- Attempts that another attempt followed.
CREATE TABLE attempt (
    run         bigint NOT NULL,
    node        int NOT NULL,
    map_index   int NOT NULL,
    attempt     int NOT NULL,
    delivery    bigint NOT NULL,
    worker      text,
    started_at  timestamptz,
    ended_at    timestamptz NOT NULL,
    error       jsonb,
    state       text NOT NULL DEFAULT 'failed', -- or the final state before it was cleared
    PRIMARY KEY (run, node, map_index, attempt, delivery)
) PARTITION BY RANGE (run);

-- Journals of tasks: recorded steps and completed waits, in order; resumptions and further attempts
-- replay them.
CREATE SEQUENCE journal_entry_id;
CREATE TABLE journal_entry (
    id          bigint NOT NULL DEFAULT nextval('journal_entry_id'),
    run         bigint NOT NULL,
    node        int NOT NULL,
    map_index   int NOT NULL,
    key         text NOT NULL,
    label       text NOT NULL,
    kind        text NOT NULL,           -- step, wait
    value       bytea NOT NULL,
    error       jsonb,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run, node, map_index, key)
) PARTITION BY RANGE (run);

-- Output of task attempts, in chunks.
CREATE TABLE log (
    run         bigint NOT NULL,
    node        int NOT NULL,
    map_index   int NOT NULL,
    attempt     int NOT NULL,
    delivery    bigint NOT NULL,
    sequence    int NOT NULL,
    text        text NOT NULL,
    PRIMARY KEY (run, node, map_index, attempt, delivery, sequence)
) PARTITION BY RANGE (run);

-- Waits and triggers --------------------------------------------------------------------------

-- Waits of deferred tasks (a row for each wait of the wait set) and watched datasets (a row for
-- each). Rows of kind `trigger` and `watch` have an owner: the triggerer that leases them.
CREATE TABLE trigger (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL,           -- time, trigger, event, watch
    name        text NOT NULL,
    data        bytea NOT NULL,          -- the encoded trigger
    share_key   text,
    run         bigint,
    node        int,
    map_index   int,
    delivery    bigint,
    wait_index  int,                     -- which wait of the task's wait set
    dataset     int,                     -- of a watch
    due_at      timestamptz,
    position    bytea,                   -- of a watch: where it resumes
    sequence    bigint NOT NULL DEFAULT 0,
    error       text,                    -- why it was restarted last, or cannot see its source
    error_since timestamptz,
    cancelled   boolean NOT NULL DEFAULT false,
    owner       text,
    epoch       int NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
CREATE INDEX trigger_by_task ON trigger (run, node, map_index) WHERE run IS NOT NULL;
CREATE INDEX trigger_free ON trigger (id) WHERE owner IS NULL AND kind IN ('trigger', 'watch');
CREATE INDEX trigger_by_owner ON trigger (owner) WHERE owner IS NOT NULL;
CREATE INDEX trigger_cancelled ON trigger (id) WHERE cancelled;
CREATE UNIQUE INDEX trigger_one_watch ON trigger (dataset, name, md5(data)) WHERE kind = 'watch';

-- The files that declare each watch; a watch without a file is removed.
CREATE TABLE watch_file (
    trigger     bigint NOT NULL REFERENCES trigger ON DELETE CASCADE,
    file        text NOT NULL,
    PRIMARY KEY (trigger, file)
);
CREATE INDEX watch_file_by_file ON watch_file (file);

-- Waits for events, by dataset or by pattern. A transaction that records events reads this table
-- before it commits, and one that checks the log for a wait locks it exclusively first: so no event
-- slips between the start of a wait and its first check.
CREATE TABLE event_wait (
    trigger     bigint PRIMARY KEY,
    dataset     int,
    expression  text,
    filter      text,                    -- CEL
    since       timestamptz NOT NULL,    -- events recorded earlier do not count
    checked_until bigint NOT NULL,       -- position up to which the log was checked
    due         boolean NOT NULL DEFAULT true, -- the log may have events after that position
    run         bigint NOT NULL,
    node        int NOT NULL,
    map_index   int NOT NULL,
    delivery    bigint NOT NULL,
    wait_index  int NOT NULL,
    changed_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
CREATE INDEX event_wait_by_dataset ON event_wait (dataset);
CREATE INDEX event_wait_by_task ON event_wait (run, node, map_index);

-- Triggerers that are alive; a silent one loses its triggers.
CREATE TABLE triggerer (
    name        text PRIMARY KEY,
    host        text NOT NULL,
    pid         int NOT NULL,
    capacity    int NOT NULL,
    running     int NOT NULL DEFAULT 0,
    started_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Durable timers: schedule ticks, deadlines, retries, timeouts.
CREATE TABLE timer (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    due_at      timestamptz NOT NULL,
    kind        text NOT NULL,
    dag         int,
    run         bigint,
    node        int,                     -- of a tick or deadline: which one of the schedule
    map_index   int,
    attempt     int,
    key         text,                    -- the partition, or the index of a task's wait
    set_at      timestamptz NOT NULL DEFAULT now()
);
-- A tick that is held for the end of a pause is not due.
CREATE INDEX timer_by_due ON timer (due_at) WHERE kind <> 'held_tick';
CREATE INDEX timer_by_task ON timer (run, node, map_index) WHERE run IS NOT NULL;
CREATE UNIQUE INDEX timer_one_tick ON timer (dag, node) WHERE kind = 'tick';

-- Pools and workers ---------------------------------------------------------------------------

-- Pools with a size; a pool that tasks name without a row here is unbounded.
CREATE TABLE pool (
    name        text PRIMARY KEY,
    slots       int NOT NULL,
    changed_at  timestamptz NOT NULL DEFAULT now()
);

-- Queues of tasks that need slots of the same limits (pool:…, dag:…, key:…), with the number of
-- tasks that hold slots and that wait. `capacities` has the size of each limit, 0 for a pool's.
CREATE TABLE wait_queue (
    id          int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    limits      text[] NOT NULL,
    capacities  int[] NOT NULL,
    used        int NOT NULL DEFAULT 0,
    waiting     int NOT NULL DEFAULT 0,
    UNIQUE (limits, capacities)
) WITH (fillfactor = 50);
CREATE INDEX wait_queue_by_limit ON wait_queue USING gin (limits);

-- Slots that unfinished tasks hold or wait for, with their position in the queue.
CREATE TABLE slot (
    run         bigint NOT NULL,
    node        int NOT NULL,
    map_index   int NOT NULL,
    wait_queue  int NOT NULL,
    priority    int NOT NULL,
    position    bigint GENERATED ALWAYS AS IDENTITY,
    held        boolean NOT NULL DEFAULT false,
    PRIMARY KEY (run, node, map_index)
);
CREATE INDEX slot_in_order ON slot (wait_queue, priority DESC, position) WHERE NOT held;

-- Workers that are alive, by their heartbeats.
CREATE TABLE worker (
    worker      text PRIMARY KEY,
    host        text NOT NULL,
    pid         int NOT NULL,
    slots       int NOT NULL,
    busy        int NOT NULL,
    queues      text[] NOT NULL DEFAULT '{}',
    free_sync   int NOT NULL DEFAULT 0,  -- slots without a task
    free_async  int NOT NULL DEFAULT 0,
    started_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Dead letters: messages, runs and deliveries that failed for good, kept for an operator.
CREATE TABLE dead_letter (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL,           -- message, params, loop, hook, cloudevent, delivery
    subject     text NOT NULL,           -- where it was going: a NATS subject, a DAG, a webhook …
    dag         int,
    payload     bytea NOT NULL,          -- the message as received, or JSON that can be edited
    reason      text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    resent_at   timestamptz,
    discarded_at timestamptz
);

-- Slices: the ids of events, or of runs, that were given out in one stretch of time, from
-- `number` * 2^32 on. The tables whose rows grow with them have a partition for each slice, which
-- goes as a whole. A new slice begins by a jump of the sequence of ids, so it needs no change of
-- what was there before, and without one the last slice goes on.
CREATE TABLE slice (
    series      text NOT NULL,           -- event, run
    number      int NOT NULL,
    started_at  timestamptz,             -- null until the sequence has jumped
    last_id     bigint,                  -- null until the next one has begun
    results_removed boolean NOT NULL DEFAULT false,
    PRIMARY KEY (series, number)
);

-- The tables that are partitioned by slices of a series.
CREATE FUNCTION sliced_tables(series text) RETURNS text[] LANGUAGE sql IMMUTABLE
RETURN CASE series
    WHEN 'event' THEN '{event,event_outcome}'::text[]
    WHEN 'run' THEN '{log,attempt,journal_entry,task,run_event}'::text[]
END;

-- Make the partitions of the next slice of a series, or of slice `at`, and return its number. ATTACH holds up neither
-- readers nor writers, where CREATE TABLE … PARTITION OF would.
CREATE FUNCTION open_slice(wanted text, at int DEFAULT NULL) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    opened bigint := coalesce(
        at, (SELECT coalesce(max(number) + 1, 0) FROM slice WHERE series = wanted)
    );
    parent text;
    part text;
BEGIN
    FOREACH parent IN ARRAY sliced_tables(wanted) LOOP
        part := parent || '_s' || opened;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part, parent);
        IF parent = 'event' THEN
            EXECUTE format('CREATE UNIQUE INDEX %I ON %I (event_id)', part || '_by_event_id', part);
        END IF;
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                       parent, part, opened << 32, (opened + 1) << 32);
    END LOOP;
    INSERT INTO slice (series, number) VALUES (wanted, opened);
    RETURN opened;
END $$;

-- Lock a slice of tables against all others. The parents are not locked: other slices go on.
CREATE FUNCTION lock_slice(number int, tables text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    parent text;
BEGIN
    FOREACH parent IN ARRAY tables LOOP
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', parent || '_s' || number);
    END LOOP;
END $$;

-- Remove the rows of a slice, which is locked, from tables, except for those of the events or runs
-- `kept`. TRUNCATE costs the same for any number of rows; what is kept is little, or the caller
-- leaves the slice as it is.
CREATE FUNCTION trim_slice(number int, tables text[], kept bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    part text;
BEGIN
    FOREACH parent IN ARRAY tables LOOP
        part := parent || '_s' || number;
        IF cardinality(kept) > 0 THEN
            EXECUTE format(
                'CREATE TEMP TABLE kept_rows ON COMMIT DROP AS SELECT * FROM %I WHERE %I = ANY($1)',
                part, CASE parent WHEN 'event' THEN 'id' WHEN 'event_outcome' THEN 'event'
                      ELSE 'run' END
            ) USING kept;
        END IF;
        EXECUTE format('TRUNCATE %I', part);
        IF cardinality(kept) > 0 THEN
            EXECUTE format('INSERT INTO %I SELECT * FROM kept_rows', part);
            DROP TABLE kept_rows;
        END IF;
    END LOOP;
END $$;

-- Collect the statistics of the sliced tables: autovacuum does so for their partitions alone.
CREATE FUNCTION analyze_series(wanted text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    parent text;
BEGIN
    FOREACH parent IN ARRAY sliced_tables(wanted) LOOP
        EXECUTE format('ANALYZE %I', parent);
    END LOOP;
END $$;

SELECT open_slice('event'), open_slice('run');
UPDATE slice SET started_at = now();

-- Events as tasks see them (EventInfo), with the run that emitted each.
CREATE VIEW event_info AS
SELECT event.id, event.event_id, dataset.uri, event.extra, event.partition, event.time,
       event.source, event.recorded_at, event.ancestry, run.run_id, dag.dag_id, event.node,
       run.version, event.dataset, event.trace
FROM event
JOIN dataset ON dataset.id = event.dataset
LEFT JOIN run ON run.id = event.run
LEFT JOIN dag ON dag.id = run.dag;

-- Change log ----------------------------------------------------------------------------------

-- The change log behind the live stream: a row for each transaction, written with the state. Ids
-- are allocated under the locks of the changed rows, so for each object they have the order of its
-- changes. A transaction that commits later may have a lower id; one that fails leaves a gap.
CREATE TABLE change (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    body        bytea NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
);

-- The name of this change log, and the last id that was pruned; one row.
CREATE TABLE change_log (
    name        text PRIMARY KEY,
    pruned_through bigint NOT NULL DEFAULT 0
);
INSERT INTO change_log (name) VALUES (left(md5(gen_random_uuid()::text), 8));

-- Epochs --------------------------------------------------------------------------------------

-- The epoch of this database, one row. A restore begins a new one: it is the upper part of all
-- numbers that are handed out from then on, so none of them was handed out before.
CREATE TABLE store_epoch (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    number      bigint NOT NULL DEFAULT 0,
    identity    text,                    -- the cluster, database and timeline it is for
    begun_at    timestamptz NOT NULL DEFAULT now()
);
INSERT INTO store_epoch DEFAULT VALUES;

-- Outbound deliveries -------------------------------------------------------------------------

-- Leases for what only one of several daemons may do. A transaction that writes under a lease holds
-- its row FOR KEY SHARE with the epoch it knows; one that takes the lease over locks the row first.
CREATE TABLE lease (
    name        text PRIMARY KEY,
    owner       text,
    epoch       bigint NOT NULL DEFAULT 0,
    seen_at     timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Subscriptions that push events to a URL. Everything up to `cursor` is delivered or dead, except
-- for the rows of event_delivery.
CREATE TABLE event_subscription (
    id          uuid PRIMARY KEY,
    url         text NOT NULL,
    dataset     text,                    -- a URI or a pattern; null for all datasets
    expression  text,                    -- the same as a regular expression
    dags        text[] NOT NULL,         -- only events that tasks of these DAGs emit; empty for all
    filter      text,                    -- CEL
    mode        text NOT NULL,           -- structured, binary
    ordered     boolean NOT NULL,
    description text NOT NULL,
    state       text NOT NULL DEFAULT 'active', -- active, paused, gone
    reason      text,                    -- why it is gone
    version     int NOT NULL DEFAULT 1,
    cursor      bigint NOT NULL,
    delivered   bigint NOT NULL DEFAULT 0,
    dead        bigint NOT NULL DEFAULT 0,
    last_at     timestamptz,
    last_status int,
    last_error  text,
    created_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);

-- Deliveries that wait for another try.
CREATE TABLE event_delivery (
    subscription uuid NOT NULL REFERENCES event_subscription ON DELETE CASCADE,
    event       bigint NOT NULL,
    attempts    int NOT NULL,
    due_at      timestamptz NOT NULL,
    PRIMARY KEY (subscription, event)
);
CREATE INDEX event_delivery_by_due ON event_delivery (subscription, due_at);
