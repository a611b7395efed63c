"""Runs and tasks: states, progress, retries, waits, concurrency, params."""
