"""Named values: variables, and the state of DAGs."""
