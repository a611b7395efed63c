-- Everything pubsubflow knows. Outsiders see UUIDs, inside there are bigints.
-- Hot tables (gate, run_live, task_live, pending, timer) hold only what is not finished and stay
-- small; no index covers a column that a hot update changes, so those updates stay on their page.

CREATE TABLE dataset (
    id          int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uri         text NOT NULL UNIQUE,
    name        text,
    grp         text,
    extra       jsonb NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE source (
    hash        text PRIMARY KEY,
    bundle      bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- One row a DAG file: what stands in it now, and the error of its last import, if any.
CREATE TABLE dag_file (
    file        text PRIMARY KEY,
    source      text NOT NULL,
    error       text,
    traceback   text,
    seconds     float8 NOT NULL DEFAULT 0,
    read_at     timestamptz NOT NULL DEFAULT now()
);

-- Webhooks as files declare them; those of a file that cannot be imported stay in force.
CREATE TABLE hook (
    name        text PRIMARY KEY,
    file        text NOT NULL,
    spec        bytea NOT NULL
);

-- Connections ---------------------------------------------------------------------------------

-- Named targets; `sealed` is encrypted with `key` and bound to all of the row's plain columns, which
-- therefore are texts that come back as they were written.
CREATE SEQUENCE connection_version;
CREATE TABLE connection (
    name        text PRIMARY KEY,
    kind        text NOT NULL,
    uri         text,
    extra       text NOT NULL,           -- a JSON object
    secret_fields text[] NOT NULL,
    key         text,                    -- id of a key in the key file
    sealed      bytea,
    version     bigint NOT NULL DEFAULT nextval('connection_version'),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CHECK ((key IS NULL) = (sealed IS NULL))
);

-- Locked by whoever writes connections or the key file; its id tells whose the keys there are.
CREATE TABLE connection_vault (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    id          uuid NOT NULL DEFAULT gen_random_uuid()
);

-- Access: who may ask, and who did what ---------------------------------------------------------

-- Tokens of the API; only their SHA-256 is here. Names are unique among those not revoked.
CREATE TABLE token (
    id          uuid PRIMARY KEY,
    name        text NOT NULL,
    role        text NOT NULL CHECK (role IN ('viewer', 'emitter', 'operator', 'admin')),
    digest      bytea NOT NULL UNIQUE,
    datasets    text[] NOT NULL DEFAULT '{}',  -- patterns; for an emitter
    created_at  timestamptz NOT NULL DEFAULT now(),
    created_by  text NOT NULL,
    expires_at  timestamptz,
    used_at     timestamptz,
    revoked_at  timestamptz
);

CREATE UNIQUE INDEX token_name ON token (name) WHERE revoked_at IS NULL;

-- Who did what, or was not let do it; written before it is done, the status after.
CREATE TABLE audit (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now(),
    asker       text NOT NULL,
    token       uuid,
    remote      text,
    action      text NOT NULL,
    object      text,
    status      int,
    times       int NOT NULL DEFAULT 1
);

CREATE INDEX audit_at ON audit USING brin (at) WITH (pages_per_range = 16);
CREATE INDEX audit_asker ON audit (asker, id);

-- Everything else -------------------------------------------------------------------------------

CREATE TABLE dag (
    id          int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dag_id      text NOT NULL UNIQUE,
    file        text NOT NULL,
    present     boolean NOT NULL DEFAULT true,
    version     bigint NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX dag_by_file ON dag (file);

CREATE TABLE dag_version (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dag         int NOT NULL REFERENCES dag,
    number      int NOT NULL,
    hash        text NOT NULL,
    spec        bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (dag, hash)
);

-- The lock of a DAG's schedule, and all that deciding about it needs.
-- since: the first event that it has not looked at yet (a new subscription, or a pause that keeps
-- events); none of the later ones either, until it has caught up.
CREATE TABLE gate (
    dag         int PRIMARY KEY REFERENCES dag,
    version     bigint NOT NULL,
    paused      boolean NOT NULL DEFAULT false,
    active      int NOT NULL DEFAULT 0,
    queued      int NOT NULL DEFAULT 0,
    since       bigint,
    changes     int NOT NULL DEFAULT 0   -- how often people have changed it
) WITH (fillfactor = 50);

-- What is pending for a DAG's condition, as counts: the whole ('') or a partition key.
-- open: something is pending or a run is forming.
CREATE TABLE cell (
    dag         int NOT NULL REFERENCES dag,
    key         text NOT NULL,
    state       bytea NOT NULL,
    open        boolean NOT NULL,
    PRIMARY KEY (dag, key)
) WITH (fillfactor = 50);

-- Which DAGs subscribe to all datasets whose URI matches, also those that appear later.
CREATE TABLE pattern (
    dag         int NOT NULL REFERENCES dag,
    pattern     text NOT NULL,
    expression  text NOT NULL,
    PRIMARY KEY (dag, pattern)
);

CREATE TABLE subscription (
    dataset     int NOT NULL REFERENCES dataset,
    dag         int NOT NULL REFERENCES dag,
    PRIMARY KEY (dataset, dag)
);
CREATE INDEX subscription_by_dag ON subscription (dag);

CREATE SEQUENCE event_id;
CREATE TABLE event (
    id          bigint PRIMARY KEY,
    event_id    uuid NOT NULL,
    dataset     int NOT NULL,
    extra       jsonb NOT NULL,
    partition   text,
    time        timestamptz NOT NULL,
    source      text NOT NULL,
    run         bigint,
    node        int,
    map_index   int,
    trail       int[] NOT NULL DEFAULT '{}', -- the DAGs whose runs led to it, from the origin on
    recorded_at timestamptz NOT NULL DEFAULT now(),
    trace       text                     -- W3C trace context of the span that gave it
);
CREATE INDEX event_by_time ON event (recorded_at);
CREATE INDEX event_by_dataset ON event (dataset, id);
CREATE INDEX event_by_run ON event (run) WHERE run IS NOT NULL;
CREATE UNIQUE INDEX event_by_event_id ON event (event_id);

-- The keys under which outsiders posted events; the same key again gives the same event.
CREATE TABLE event_key (
    key         text PRIMARY KEY,
    event_id    uuid NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- What a DAG's place has not consumed yet.
CREATE TABLE pending (
    dag         int NOT NULL,
    cell        text NOT NULL,
    place       smallint NOT NULL,
    event       bigint NOT NULL,
    PRIMARY KEY (dag, cell, place, event)
);
CREATE INDEX pending_by_event ON pending (event);

-- What became of an event for a subscription, where no run consumed it and it is not pending:
-- filtered, expired, skipped or dead, and why.
CREATE TABLE event_fate (
    event       bigint NOT NULL,
    dag         int NOT NULL,
    place       smallint NOT NULL,
    cell        text NOT NULL DEFAULT '',
    fate        text NOT NULL,
    reason      text NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event, dag, place, cell)
);
CREATE INDEX event_fate_by_dag ON event_fate (dag, event);

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
    cleared     int NOT NULL DEFAULT 0,  -- how often tasks of it were cleared, and by which request
    clear_id    uuid,                    -- the last time
    UNIQUE (dag, run_key)
) WITH (fillfactor = 80);
CREATE INDEX run_by_dag ON run (dag, run_id);

-- Only while a run is running: its progress, and what its tasks may know of it.
CREATE TABLE run_live (
    run         bigint PRIMARY KEY,
    dag         int NOT NULL,
    version     bigint NOT NULL,
    progress    bytea NOT NULL,
    info        bytea NOT NULL
) WITH (fillfactor = 50);

-- Runs over the limit of their DAG, in order.
CREATE TABLE run_queue (
    position    bigint GENERATED ALWAYS AS IDENTITY,
    dag         int NOT NULL,
    run         bigint NOT NULL,
    info        bytea NOT NULL,
    progress    bytea,                   -- of one that goes on as tasks of it were cleared
    PRIMARY KEY (dag, position)
);
CREATE INDEX run_queue_by_run ON run_queue (run);

-- Why a run exists: the events it consumed, and in which place.
CREATE TABLE run_event (
    run         bigint NOT NULL,
    event       bigint NOT NULL,
    place       smallint NOT NULL,
    PRIMARY KEY (run, event, place)
);
CREATE INDEX run_event_by_event ON run_event (event);

-- Only while a task is not finished. A row in state `queued` is the undelivered message itself.
-- `chained` rows were started by the runner that finished the task before: no message covers them.
CREATE TABLE task_live (
    run         bigint NOT NULL,
    node        int NOT NULL,
    map_index   int NOT NULL,
    attempt     int NOT NULL,
    delivery    int NOT NULL,
    crashes     int NOT NULL DEFAULT 0,
    state       text NOT NULL,
    chained     boolean NOT NULL DEFAULT false,
    worker      text,
    queued_at   timestamptz NOT NULL DEFAULT now(),
    started_at  timestamptz,
    waiting     bytea,                   -- while it is deferred: what it waits for
    base        int NOT NULL DEFAULT 0,  -- attempts before it was cleared: they cost no retry
    PRIMARY KEY (run, node, map_index)
) WITH (fillfactor = 50);

-- What a task has done and waited for, in its own order: a resumption and a further attempt take
-- it as it stands here.
CREATE TABLE step (
    id          bigint GENERATED ALWAYS AS IDENTITY,
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
);

-- Everything that is waited for: a row for each thing that a deferred task waits for, and one for
-- each watched dataset. Triggers have an owner, which runs them under a lease.
CREATE TABLE trigger (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL,           -- time, trigger, event, watch
    name        text NOT NULL,
    data        bytea NOT NULL,          -- the encoded trigger
    share       text,
    run         bigint,
    node        int,
    map_index   int,
    delivery    int,
    slot        int,
    dataset     int,                     -- what is watched
    due_at      timestamptz,
    position    bytea,                   -- of a watched dataset: from where to go on
    sequence    bigint NOT NULL DEFAULT 0,
    error       text,                    -- of a watch: why it was started again last
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

-- Which files declare a watch; one that none declares any more is no more.
CREATE TABLE watch_file (
    trigger     bigint NOT NULL REFERENCES trigger ON DELETE CASCADE,
    file        text NOT NULL,
    PRIMARY KEY (trigger, file)
);
CREATE INDEX watch_file_by_file ON watch_file (file);

-- How an event finds those that wait for it: by its dataset, or by a pattern. Whoever records
-- events reads this table before it commits; who looks back for them locks it against all others
-- first. So no event slips between a wait's beginning and its look.
CREATE TABLE event_wait (
    trigger     bigint PRIMARY KEY,
    dataset     int,
    expression  text,
    filter      text,                    -- CEL
    since       timestamptz NOT NULL,    -- events recorded before do not count
    after       bigint NOT NULL,         -- nor do those up to here: it has looked at them
    due         boolean NOT NULL DEFAULT true, -- there may be events that it has not looked at
    run         bigint NOT NULL,
    node        int NOT NULL,
    map_index   int NOT NULL,
    delivery    int NOT NULL,
    slot        int NOT NULL,
    changed_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
CREATE INDEX event_wait_by_dataset ON event_wait (dataset);
CREATE INDEX event_wait_by_task ON event_wait (run, node, map_index);

-- Who runs triggers; one that is silent loses them.
CREATE TABLE triggerer (
    name        text PRIMARY KEY,
    host        text NOT NULL,
    pid         int NOT NULL,
    capacity    int NOT NULL,
    running     int NOT NULL DEFAULT 0,
    started_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

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
);

-- Attempts that were followed by another one.
CREATE TABLE attempt (
    run         bigint NOT NULL,
    node        int NOT NULL,
    map_index   int NOT NULL,
    attempt     int NOT NULL,
    delivery    int NOT NULL,
    worker      text,
    started_at  timestamptz,
    ended_at    timestamptz NOT NULL,
    error       jsonb,
    state       text NOT NULL DEFAULT 'failed', -- or what it came to before it was cleared
    PRIMARY KEY (run, node, map_index, attempt, delivery)
);

CREATE TABLE log (
    run         bigint NOT NULL,
    node        int NOT NULL,
    map_index   int NOT NULL,
    attempt     int NOT NULL,
    delivery    int NOT NULL,
    sequence    int NOT NULL,
    text        text NOT NULL,
    PRIMARY KEY (run, node, map_index, attempt, delivery, sequence)
);

-- Limits on how many tasks run at once.
-- A pool has as many slots as somebody gave it; one that is only named has no bound.
CREATE TABLE pool (
    name        text PRIMARY KEY,
    slots       int NOT NULL,
    changed_at  timestamptz NOT NULL DEFAULT now()
);

-- Those who need slots of the same limits (pool:…, dag:…, key:…) stand in one line. `most` has the
-- number of each limit, 0 for a pool's. It counts who has slots and who waits.
CREATE TABLE line (
    id          int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    limits      text[] NOT NULL,
    most        int[] NOT NULL,
    used        int NOT NULL DEFAULT 0,
    waiting     int NOT NULL DEFAULT 0,
    UNIQUE (limits, most)
) WITH (fillfactor = 50);
CREATE INDEX line_by_limit ON line USING gin (limits);

-- Live tasks that need slots: whether they have them, and their place in line until then.
CREATE TABLE slot (
    run         bigint NOT NULL,
    node        int NOT NULL,
    map_index   int NOT NULL,
    line        int NOT NULL,
    priority    int NOT NULL,
    position    bigint GENERATED ALWAYS AS IDENTITY,
    held        boolean NOT NULL DEFAULT false,
    PRIMARY KEY (run, node, map_index)
);
CREATE INDEX slot_in_order ON slot (line, priority DESC, position) WHERE NOT held;

CREATE TABLE timer (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    due_at      timestamptz NOT NULL,
    kind        text NOT NULL,
    dag         int,
    run         bigint,
    node        int,
    map_index   int,
    attempt     int,
    cell        text
);
CREATE INDEX timer_by_due ON timer (due_at);
CREATE INDEX timer_by_task ON timer (run, node, map_index) WHERE run IS NOT NULL;
CREATE UNIQUE INDEX timer_one_tick ON timer (dag, node) WHERE kind = 'tick';

CREATE TABLE worker (
    worker      text PRIMARY KEY,
    host        text NOT NULL,
    pid         int NOT NULL,
    slots       int NOT NULL,
    busy        int NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- What could not be done, kept for a person: nothing is dropped in silence.
CREATE TABLE dead_letter (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL,           -- message, params, loop, hook, cloudevent, delivery
    subject     text NOT NULL,           -- where it was going: a subject of the bus, a DAG, hook …
    dag         int,
    payload     bytea NOT NULL,          -- the message as it came, or JSON that can be edited
    reason      text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    resent_at   timestamptz
);

-- Events as tasks see them, with the run that caused each.
CREATE VIEW told_event AS
SELECT event.id, event.event_id, dataset.uri, event.extra, event.partition, event.time,
       event.source, event.recorded_at, event.trail, run.run_id, dag.dag_id, event.node,
       run.version, event.dataset, event.trace
FROM event
JOIN dataset ON dataset.id = event.dataset
LEFT JOIN run ON run.id = event.run
LEFT JOIN dag ON dag.id = run.dag;

-- Live stream ---------------------------------------------------------------------------------

-- What happened, as those who listen are told: a row for each transaction, written with the state.
-- Numbers are taken under the locks of what the row tells of, so their order is that of the
-- changes; a transaction that ends later may have a lower one, and one that fails leaves a gap.
CREATE TABLE news (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    body        bytea NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
);

-- The log's own name, and the last row of it that is no more.
CREATE TABLE news_log (
    name        text PRIMARY KEY,
    forgotten   bigint NOT NULL DEFAULT 0
);
INSERT INTO news_log (name) VALUES (left(md5(gen_random_uuid()::text), 8));

-- Events out ----------------------------------------------------------------------------------

-- Who of several daemons does what only one may do. Whoever writes under a lease holds its row
-- FOR KEY SHARE with the epoch it knows; whoever takes it over locks the row first.
CREATE TABLE lease (
    name        text PRIMARY KEY,
    owner       text,
    epoch       bigint NOT NULL DEFAULT 0,
    seen_at     timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Who wants events at a URL. Everything up to `cursor` is settled, apart from what stands in
-- http_delivery.
CREATE TABLE http_subscription (
    id          uuid PRIMARY KEY,
    url         text NOT NULL,
    dataset     text,                    -- a URI or a pattern; all if null
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

-- What was not taken and is tried again, or is sent once more because a person wants it.
CREATE TABLE http_delivery (
    subscription uuid NOT NULL REFERENCES http_subscription ON DELETE CASCADE,
    event       bigint NOT NULL,
    attempts    int NOT NULL,
    due_at      timestamptz NOT NULL,
    PRIMARY KEY (subscription, event)
);
CREATE INDEX http_delivery_by_due ON http_delivery (subscription, due_at);
