"""Postgres: the schema, its queries, and typed access to them."""
