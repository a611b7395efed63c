"""Tracing: exports spans of events, runs and tasks to an OpenTelemetry collector."""

from pubsubflow.tracing.settings import TracesSettings
from pubsubflow.tracing.setup import open_tracing

__all__ = ["TracesSettings", "open_tracing"]
