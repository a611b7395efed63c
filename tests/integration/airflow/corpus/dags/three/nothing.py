"""Talks of a dag and of airflow, and has none."""
ANSWER = 42
