"""Lineage: tells an OpenLineage endpoint what ran, and what it read and wrote."""

from pubsubflow.lineage.emitter import Pace
from pubsubflow.lineage.service import Lineage
from pubsubflow.lineage.settings import LineageSettings

__all__ = ["Lineage", "LineageSettings", "Pace"]
