"""Tracing: exports spans of events, runs and tasks to an OpenTelemetry collector."""

from typing import TYPE_CHECKING

from pubsubflow.model.lazy_import import lazy_names

if TYPE_CHECKING:
    from pubsubflow.tracing.settings import TracesSettings
    from pubsubflow.tracing.setup import open_tracing

__all__ = ["TracesSettings", "open_tracing"]

__getattr__ = lazy_names(__name__, {"settings": ("TracesSettings",), "setup": ("open_tracing",)})
