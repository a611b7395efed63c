"""Output and results of tasks, in Postgres and in object stores."""
