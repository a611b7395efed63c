"""Authentication and audit of requests."""
