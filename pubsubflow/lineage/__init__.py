"""Lineage: tells an OpenLineage endpoint what ran, and what it read and wrote."""

from pubsubflow.lineage.service import Lineage
from pubsubflow.lineage.settings import LineageSettings
from pubsubflow.lineage.telling import Pace

__all__ = ["Lineage", "LineageSettings", "Pace"]
