"""Metrics of retention."""

from collections.abc import Iterable, Iterator

from pubsubflow.instruments import LONG_SECONDS, Counter, Gauge, Histogram, Instrument
from pubsubflow.store.slices import Removal


class RetentionMetrics:
    """Metrics of the retention of one daemon.

    Attributes:
        pass_seconds: Time of a pass.
        held_slices: Slices that are due and that the last pass left as they were.
    """

    def __init__(self) -> None:
        self.pass_seconds = Histogram(
            "pubsubflow_retention_pass_seconds", "Time of a pass of retention.", LONG_SECONDS
        )
        self.held_slices = 0
        self._rows = Counter(
            "pubsubflow_retention_removed_rows", "Rows that were removed, about.", ("table",)
        )
        self._bytes = Counter(
            "pubsubflow_retention_removed_bytes", "Bytes that were removed, about.", ("table",)
        )

    def __iter__(self) -> Iterator[Instrument]:
        """Iterate over all metrics."""
        yield self.pass_seconds
        yield self._rows
        yield self._bytes
        yield Gauge(
            "pubsubflow_retention_held_slices",
            "Slices that are due, but of which too much is still waited for.",
            lambda: self.held_slices,
        )

    def removed(self, removals: Iterable[Removal]) -> None:
        """Count what was removed."""
        for each in removals:
            self._rows.add(each.rows, each.table)
            self._bytes.add(each.bytes, each.table)
