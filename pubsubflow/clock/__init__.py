"""Time: fires the timers that stand in the store."""

from pubsubflow.clock.clock import Clock, ClockSettings

__all__ = ["Clock", "ClockSettings"]
