"""triggerer."""
