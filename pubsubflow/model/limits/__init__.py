"""Limits of tasks as DAGs declare them: rate limits, concurrency keys."""
