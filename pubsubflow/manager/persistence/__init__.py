"""Persistence: rows to working copies, and back."""
