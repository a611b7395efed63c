"""Reads about checks and the events that they hold."""
