"""Alerts and the calls of callbacks, in the store."""
