"""Lineage: sends OpenLineage events of runs, with what they read and wrote, to an endpoint."""

from typing import TYPE_CHECKING

from pubsubflow.model.lazy_import import lazy_names

if TYPE_CHECKING:
    from pubsubflow.lineage.emitter import SendRetryPolicy
    from pubsubflow.lineage.service import Lineage
    from pubsubflow.lineage.settings import LineageSettings

__all__ = ["Lineage", "LineageSettings", "SendRetryPolicy"]

__getattr__ = lazy_names(
    __name__,
    {"emitter": ("SendRetryPolicy",), "service": ("Lineage",), "settings": ("LineageSettings",)},
)
