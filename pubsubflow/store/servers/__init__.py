"""Servers of Postgres: which of several is connected to, and how its silence is noticed."""
