"""The metrics of a triggerer: its triggers, their events and crashes of the host."""

from collections.abc import Callable, Iterator

from pubsubflow.instruments import Counter, Gauge, Instrument


class TriggererMetrics:
    """The counters and gauges of one triggerer.

    Args:
        running: Returns how many triggers it runs.
        capacity: How many it may run.

    Attributes:
        fired: Events of triggers.
        host_deaths: Exits of the host process that were not ordered.
    """

    def __init__(self, running: Callable[[], int], capacity: int) -> None:
        self.fired = Counter("pubsubflow_triggerer_fired", "Events that triggers have given.")
        self.host_deaths = Counter(
            "pubsubflow_triggerer_host_deaths",
            "Processes with triggers that crashed or were killed for not answering.",
        )
        self._gauges = (
            Gauge("pubsubflow_triggerer_triggers", "Triggers that this triggerer runs.", running),
            Gauge(
                "pubsubflow_triggerer_capacity",
                "Triggers that this triggerer may run.",
                lambda: capacity,
            ),
        )

    def __iter__(self) -> Iterator[Instrument]:
        """Iterate over all of them."""
        yield from (*self._gauges, self.fired, self.host_deaths)
