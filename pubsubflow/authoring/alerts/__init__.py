"""Callbacks and deadlines, as DAG files declare them."""
