"""Output of tasks, in Postgres and in the log store."""
