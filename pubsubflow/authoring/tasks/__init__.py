"""Tasks of a DAG: the `@task` decorator, operators, sensors, groups and the graph they form."""
