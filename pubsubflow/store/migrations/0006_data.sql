-- What tasks leave behind besides their results, variables, and the state of DAGs.

-- MessagePack: values pushed by key, and rendered fields; NULL without either.
ALTER TABLE task ADD COLUMN outputs bytea;

CREATE SEQUENCE variable_version;

-- Variables. One that is secret has its value in `ciphertext` alone.
CREATE TABLE variable (
    name        text PRIMARY KEY,
    value       text,                    -- JSON, as it was given
    secret      boolean NOT NULL,
    description text,
    key_id      text,                    -- a key of the keyring
    ciphertext  bytea,
    version     bigint NOT NULL DEFAULT nextval('variable_version'),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CHECK (secret = (value IS NULL)),
    CHECK (secret = (ciphertext IS NOT NULL)),
    CHECK ((key_id IS NULL) = (ciphertext IS NULL))
);

-- Small values that the tasks of a DAG keep from run to run. A row that was reset stays, without a
-- value: its version counts on, so that no task takes what came after it for what it has read.
CREATE TABLE state_value (
    dag         int NOT NULL REFERENCES dag,
    name        text NOT NULL,
    value       text,                    -- JSON
    version     bigint NOT NULL DEFAULT 1,
    run         bigint,                  -- of the task that set it; NULL for a person
    node        int,
    map_index   int,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dag, name)
);
