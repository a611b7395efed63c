"""Exchanges of tasks with the managers: their requests, and the host that sends them."""
