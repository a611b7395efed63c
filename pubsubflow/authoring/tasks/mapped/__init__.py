"""Mapping of tasks and task groups over lists and results."""
