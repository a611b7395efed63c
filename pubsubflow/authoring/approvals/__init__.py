"""Approvals: what a task needs people to decide."""
