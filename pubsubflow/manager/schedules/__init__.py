"""Schedules: DAG states, firing, admission, replay, redrive."""
