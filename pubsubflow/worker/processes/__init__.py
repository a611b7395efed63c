"""Processes of tasks: their pools, what they are sent and write, and what follows when they die."""
