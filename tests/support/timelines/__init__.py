"""Timelines of docs/schedules.md: parsed, played on the manager and drawn as text."""
