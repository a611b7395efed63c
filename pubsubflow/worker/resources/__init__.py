"""Resources of tasks: their limits, and what the worker has for them."""
