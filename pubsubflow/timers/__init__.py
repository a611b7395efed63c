"""Time: fires the timers that stand in the store."""

from pubsubflow.timers.service import Clock, ClockSettings

__all__ = ["Clock", "ClockSettings"]
