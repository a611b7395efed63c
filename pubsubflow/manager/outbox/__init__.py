"""Outbox: what follows a commit: orders, changes, published events, spans."""
