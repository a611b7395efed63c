"""Execution of DAG files and the registry of what they define."""
