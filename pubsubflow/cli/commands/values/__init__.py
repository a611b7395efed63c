"""Commands about named values: connections, variables, and the state of DAGs."""
