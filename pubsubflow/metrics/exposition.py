"""Figures as text, in Prometheus' format or as OpenMetrics.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pubsubflow.instruments import Counter, Figure, Gauge, Histogram
from pubsubflow.metrics.cluster import Cluster


class Exposition:
    """All that one daemon tells about itself, and about the cluster that it belongs to.

    Args:
        parts: Figures of its services.
        cluster: Asks Postgres and JetStream.
    """

    def __init__(self, parts: Sequence[Iterable[Figure]], cluster: Cluster) -> None:
        self._cluster = cluster
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Figures(parts))
        self._registry.register(_Figures([cluster]))
        self._registry.register(_Build())
        ProcessCollector(registry=self._registry)

    async def expose(self, accept: str) -> tuple[bytes, str]:
        """Return all figures as text, and the text's type.

        Args:
            accept: Of the request's header; empty for Prometheus' own format.
        """
        await self._cluster.refresh()
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Figures(Collector):
    """Our figures as the client library takes them."""

    def __init__(self, parts: Sequence[Iterable[Figure]]) -> None:
        self._parts = parts

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: names do not clash, a test sees to that."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Yield everything as it is now."""
        for part in self._parts:
            for figure in part:
                yield _family(figure)


class _Build(Collector):
    """What this daemon is."""

    def collect(self) -> Iterator[Metric]:
        """Yield it."""
        info = {"version": version("pubsubflow"), "python": platform.python_version()}
        yield InfoMetricFamily("pubsubflow_build", "What this daemon is.", info)


def _family(figure: Figure) -> Metric:
    match figure:
        case Counter():
            counter = CounterMetricFamily(figure.name, figure.help, labels=figure.labels)
            for labels, value in figure.read():
                counter.add_metric(labels, value)
            return counter
        case Gauge():
            gauge = GaugeMetricFamily(figure.name, figure.help, labels=figure.labels)
            for labels, value in figure.read():
                gauge.add_metric(labels, float(value))
            return gauge
        case Histogram():
            return _histogram(figure)


def _histogram(figure: Histogram) -> Metric:
    family = HistogramMetricFamily(figure.name, figure.help, labels=figure.labels)
    bounds = [*map(str, figure.bounds), "+Inf"]
    for labels, observed in figure.read():
        sums = accumulate(observed.counts)
        family.add_metric(labels, list(zip(bounds, sums, strict=True)), observed.total)
    return family
