"""Traces: spans of events, runs and tasks for an OpenTelemetry collector, where one is set."""

from pubsubflow.tracing.opening import open_tracing
from pubsubflow.tracing.settings import TracesSettings

__all__ = ["TracesSettings", "open_tracing"]
