"""Metrics: all figures of a daemon as Prometheus reads them."""

from pubsubflow.metrics.cluster import Cluster
from pubsubflow.metrics.exposition import Exposition
from pubsubflow.metrics.lag import LoopLag
from pubsubflow.metrics.settings import MetricsSettings

__all__ = ["Cluster", "Exposition", "LoopLag", "MetricsSettings"]
