"""Fault campaigns: daemons as processes, load, kills, and the checks after them."""
