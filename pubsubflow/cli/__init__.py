"""The command line: the entry point, and what its command groups share."""
