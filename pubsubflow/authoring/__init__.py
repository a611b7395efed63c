"""What users write with: datasets, schedules, DAGs, tasks, operators, the context of a task."""
