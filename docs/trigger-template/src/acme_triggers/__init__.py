"""Triggers of Acme."""
