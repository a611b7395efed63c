"""Threads for calls that may never return."""
