"""The authoring API: datasets, schedules, DAGs, tasks, operators, the context of a task."""
