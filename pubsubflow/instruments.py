"""Metric instruments: counters, gauges and histograms, independent of a monitoring system.

A service gets its metrics by its constructor, or creates them, and offers them as `metrics`; the
composition root exposes all of them at `/metrics`. Everything happens on the event loop's thread,
so nothing is locked: counting is an addition, timing a bisection.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

Labels: TypeAlias = tuple[str, ...]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Bounds for operations that take milliseconds."""
LONG_SECONDS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0)
"""Bounds for the time of users' code."""
SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
"""Bounds for the number of things in a batch."""


class Counter:
    """A number that only increases.

    Args:
        name: In Prometheus, without `_total`.
        help: One sentence.
        labels: Names of labels; each must have few values.
    """

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:
        self.name, self.help, self.labels = name, help, labels
        self._values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, amount: float = 1.0, *labels: str) -> None:
        """Add to the counter."""
        self._values[labels] = self._values.get(labels, 0.0) + amount

    def read(self) -> Iterator[tuple[Labels, float]]:
        """Yield label values and counts."""
        yield from self._values.items()


class Gauge:
    """A number that is read at the moment of a scrape.

    Args:
        name: In Prometheus.
        help: One sentence.
        read: Returns the value, or a mapping of label values to values.
        labels: Names of labels; each must have few values.
    """

    kind = "gauge"

    def __init__(
        self,
        name: str,
        help: str,
        read: Callable[[], float | dict[Labels, float]],
        labels: Labels = (),
    ) -> None:
        self.name, self.help, self.labels = name, help, labels
        self._look = read

    def read(self) -> Iterator[tuple[Labels, float]]:
        """Yield label values and values."""
        found = self._look()
        if isinstance(found, dict):
            yield from found.items()
        else:
            yield (), found


class Observed:
    """The observations of a histogram for one combination of label values.

    Attributes:
        counts: Observations per bucket, not cumulated; the last bucket has no bound.
        total: Sum of all observed values.
    """

    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.total = 0.0


class Histogram:
    """A distribution of values over buckets.

    Args:
        name: In Prometheus, with its unit.
        help: One sentence.
        bounds: Upper bounds of the buckets, rising; one more has no bound.
        labels: Names of labels; each must have few values.
    """

    kind = "histogram"

    def __init__(
        self, name: str, help: str, bounds: Sequence[float] = SECONDS, labels: Labels = ()
    ) -> None:
        self.name, self.help, self.labels = name, help, labels
        self.bounds = tuple(bounds)
        self._children: dict[Labels, Observed] = {}
        if not labels:
            self._children[()] = Observed(len(self.bounds) + 1)

    def observe(self, value: float, *labels: str) -> None:
        """Add a value; one below 0, as of clocks that differ, counts as 0."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = Observed(len(self.bounds) + 1)
        value = max(value, 0.0)
        # Only its own bucket: the exposition cumulates, so that a scrape pays and not each value.
        child.counts[bisect_left(self.bounds, value)] += 1
        child.total += value

    def read(self) -> Iterator[tuple[Labels, Observed]]:
        """Yield label values and their observations."""
        yield from self._children.items()


Instrument: TypeAlias = Counter | Gauge | Histogram
