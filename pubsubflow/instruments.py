"""Figures: what a service counts and times, as plain objects that know no monitoring system.

A service is given its figures by its constructor, or makes its own, and offers them as `figures`;
the composition root shows all of them at `/metrics`. Everything happens on the event loop's
thread, so nothing is locked: to count is an addition, to time a bisection.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

Labels: TypeAlias = tuple[str, ...]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Bounds for what should take milliseconds."""
LONG_SECONDS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0)
"""Bounds for what users' code takes."""
SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
"""Bounds for the number of things in a batch."""


class Counter:
    """Counts what happens; it never goes back.

    Args:
        name: As Prometheus has it, without `_total`.
        help: One sentence.
        labels: Names of labels; each must have few values.
    """

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:
        self.name, self.help, self.labels = name, help, labels
        self._values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, amount: float = 1.0, *labels: str) -> None:
        """Count on."""
        self._values[labels] = self._values.get(labels, 0.0) + amount

    def read(self) -> Iterator[tuple[Labels, float]]:
        """Yield label values and count."""
        yield from self._values.items()


class Gauge:
    """Shows something as it is at the moment when somebody looks.

    Args:
        name: As Prometheus has it.
        help: One sentence.
        look: Returns the value, or a mapping of label values to values.
        labels: Names of labels; each must have few values.
    """

    kind = "gauge"

    def __init__(
        self,
        name: str,
        help: str,
        look: Callable[[], float | dict[Labels, float]],
        labels: Labels = (),
    ) -> None:
        self.name, self.help, self.labels = name, help, labels
        self._look = look

    def read(self) -> Iterator[tuple[Labels, float]]:
        """Yield label values and value."""
        found = self._look()
        if isinstance(found, dict):
            yield from found.items()
        else:
            yield (), found


class Observed:
    """What a histogram holds for one combination of labels.

    Attributes:
        counts: Observations per bucket, not cumulated; the last bucket has no bound.
        total: Sum of all observed values.
    """

    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.total = 0.0


class Histogram:
    """Sorts values into buckets.

    Args:
        name: As Prometheus has it, with its unit.
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
        """Take a value in; one below 0, as clocks that disagree give, counts as 0."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = Observed(len(self.bounds) + 1)
        value = max(value, 0.0)
        child.counts[bisect_left(self.bounds, value)] += 1
        child.total += value

    def read(self) -> Iterator[tuple[Labels, Observed]]:
        """Yield label values and what was observed."""
        yield from self._children.items()


Figure: TypeAlias = Counter | Gauge | Histogram
