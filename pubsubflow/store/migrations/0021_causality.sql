-- Causality forwards: what a run has led to. Backwards the run and the event have it.

-- The runs that tasks of a run started: the run's id ends their cause.
CREATE INDEX run_by_starter ON run ((right(cause, 36)))
    WHERE kind = 'manual' AND starts_with(cause, 'started by task ');

-- The events of a run that checks hold.
CREATE INDEX held_event_by_run ON held_event (run) WHERE run IS NOT NULL;

-- Since when a task had waited when its wait ended; of a polling sensor since its first look.
ALTER TABLE journal_entry ADD COLUMN since timestamptz;
