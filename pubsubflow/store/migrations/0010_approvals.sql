-- Approvals: answers of people. The question is the data of the wait of a task.
CREATE TABLE approval_answer (
    approval    text NOT NULL,
    person      text NOT NULL,
    role        text NOT NULL,
    option      text NOT NULL,
    values      jsonb NOT NULL,
    comment     text,
    via         text NOT NULL,           -- token, link
    remote      text,
    answered_at timestamptz NOT NULL DEFAULT now(),
    question    bytea NOT NULL,          -- the wait ends before people look
    run_id      uuid NOT NULL,
    dag_id      text NOT NULL,
    task_id     text NOT NULL,
    map_index   int NOT NULL,
    PRIMARY KEY (approval, person)
);
CREATE INDEX approval_answer_by_age ON approval_answer (answered_at);

-- Of waits for events only approvals have a share key: their id.
CREATE INDEX trigger_approval ON trigger (share_key) WHERE kind = 'event' AND share_key IS NOT NULL;
