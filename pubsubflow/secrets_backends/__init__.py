"""Secrets backends: places outside of the store that hold connections and secrets."""
