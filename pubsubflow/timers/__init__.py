"""Timers: fires the stored timers when they are due."""

from pubsubflow.timers.service import TimerService, TimerSettings

__all__ = ["TimerService", "TimerSettings"]
