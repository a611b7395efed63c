"""Schedules: conditions over datasets and time, their state, and why one has not fired."""
