"""Commands on the versions of DAGs."""
