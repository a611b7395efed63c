"""Server-sent events: the change feed and the logs of tasks."""
