"""Metrics: all instruments of a daemon in Prometheus' formats, and the metrics of the cluster."""

from typing import TYPE_CHECKING

from pubsubflow.model.lazy_import import lazy_names

if TYPE_CHECKING:
    from pubsubflow.metrics.cluster import ClusterMetrics
    from pubsubflow.metrics.exposition import Exposition
    from pubsubflow.metrics.lag import EventLoopLag
    from pubsubflow.metrics.settings import MetricsSettings

__all__ = ["ClusterMetrics", "EventLoopLag", "Exposition", "MetricsSettings"]

__getattr__ = lazy_names(
    __name__,
    {
        "cluster": ("ClusterMetrics",),
        "exposition": ("Exposition",),
        "lag": ("EventLoopLag",),
        "settings": ("MetricsSettings",),
    },
)
