"""Benchmarks: one scenario a file, JSON out; `python -m benchmarks [scenario …]`."""
