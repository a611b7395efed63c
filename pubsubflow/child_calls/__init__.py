"""Calls of user code by services: each in a process of its own, under a time limit."""
