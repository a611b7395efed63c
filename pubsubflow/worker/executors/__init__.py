"""Executors of plugins, as workers use them, and the process of an attempt that they start."""
