"""Named values in Postgres: the state of DAGs."""
