"""The exposition of metrics as text, in Prometheus' format or as OpenMetrics.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import platform
from collections.abc import Iterable, Iterator, Sequence
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

from pubsubflow.instruments import Counter, Gauge, Histogram, Instrument
from pubsubflow.metrics.cluster import ClusterMetrics
from pubsubflow.model.wire.protocol import PROTOCOL, VERSION
from pubsubflow.store.migrate import known_schema


class Exposition:
    """Exposes the metrics of one daemon, and of the cluster that it belongs to.

    Args:
        parts: The instruments of its services.
        cluster: The metrics of the cluster, from Postgres and JetStream.
    """

    def __init__(self, parts: Sequence[Iterable[Instrument]], cluster: ClusterMetrics) -> None:
        self._cluster = cluster
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Instruments(parts))
        self._registry.register(_Instruments([cluster]))
        self._registry.register(_Build())
        ProcessCollector(registry=self._registry)

    async def expose(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics as text, and the text's media type.

        Args:
            accept: The request's Accept header; empty for Prometheus' own format.
        """
        # Before the encoding, which is synchronous: collectors can only return what is there.
        await self._cluster.refresh()
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Instruments(Collector):
    """Our instruments as a collector of the client library."""

    def __init__(self, parts: Sequence[Iterable[Instrument]]) -> None:
        self._parts = parts

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: a test ensures that names do not clash."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics with their present values."""
        for part in self._parts:
            for figure in part:
                yield _family(figure)


class _Build(Collector):
    """The build of this daemon."""

    def __init__(self) -> None:
        self._schema = known_schema()

    def collect(self) -> Iterator[Metric]:
        """Yield the one metric."""
        info = {
            "version": VERSION,
            "python": platform.python_version(),
            "protocol": str(PROTOCOL),
            "schema": str(self._schema),
        }
        yield InfoMetricFamily("pubsubflow_build", "Version of this daemon.", info)


def _family(figure: Instrument) -> Metric:
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
