-- Tasks that a worker was given directly, by the manager of its own daemon: no message covers them,
-- and they are handed out again when their worker is lost.
ALTER TABLE task_live ADD COLUMN direct boolean NOT NULL DEFAULT false;
