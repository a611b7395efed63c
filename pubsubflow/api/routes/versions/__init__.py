"""Routes of the versions of DAGs: read, put in force, removed with their DAG."""
