"""Commands about named values: variables, and the state of DAGs."""
