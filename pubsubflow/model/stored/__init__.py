"""Values that daemons of several versions store and read."""
