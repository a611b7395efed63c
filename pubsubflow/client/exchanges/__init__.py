"""Exchanges of requests and responses, by two HTTP libraries."""
