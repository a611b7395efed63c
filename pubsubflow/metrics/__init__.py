"""Metrics: all instruments of a daemon in Prometheus' formats, and the metrics of the cluster."""

from pubsubflow.metrics.cluster import ClusterMetrics
from pubsubflow.metrics.exposition import Exposition
from pubsubflow.metrics.lag import EventLoopLag
from pubsubflow.metrics.settings import MetricsSettings

__all__ = ["ClusterMetrics", "EventLoopLag", "Exposition", "MetricsSettings"]
