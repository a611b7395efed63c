"""Triggers for pubsubflow, one small module each."""

from pubsubflow_triggers.time import Moment

__all__ = ["Moment"]
