"""Commands of who may use a daemon, and how."""
