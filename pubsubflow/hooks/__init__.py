"""Hooks: clients of external systems, each made from a connection of its type."""
