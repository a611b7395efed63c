-- Causality forwards: what a run has led to. Backwards the run and the event have it.

-- The runs that tasks of a run started: the run's id ends their cause.
CREATE INDEX run_by_starter ON run ((right(cause, 36)))
    WHERE kind = 'manual' AND starts_with(cause, 'started by task ');

-- Since when a task had waited when its wait ended; of a polling sensor since its first look.
ALTER TABLE journal_entry ADD COLUMN since timestamptz;
