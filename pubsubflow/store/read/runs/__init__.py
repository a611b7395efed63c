"""Runs, read for the API: one by itself, and pages of a filtered list."""
