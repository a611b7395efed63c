"""Stateful tests: random workloads, and the managers that they drive."""
