"""Lineage: sends OpenLineage events of runs, with what they read and wrote, to an endpoint."""

from pubsubflow.lineage.emitter import SendRetryPolicy
from pubsubflow.lineage.service import Lineage
from pubsubflow.lineage.settings import LineageSettings

__all__ = ["Lineage", "LineageSettings", "SendRetryPolicy"]
