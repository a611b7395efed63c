"""Timers: fires the stored timers when they are due."""

from typing import TYPE_CHECKING

from pubsubflow.model.lazy_import import lazy_names

if TYPE_CHECKING:
    from pubsubflow.timers.service import TimerService, TimerSettings

__all__ = ["TimerService", "TimerSettings"]

__getattr__ = lazy_names(__name__, {"service": ("TimerService", "TimerSettings")})
