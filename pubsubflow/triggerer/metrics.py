"""What a triggerer counts."""

from collections.abc import Callable, Iterator

from pubsubflow.instruments import Counter, Figure, Gauge


class TriggererFigures:
    """What one triggerer tells about itself.

    Args:
        running: Returns how many triggers it runs.
        capacity: How many it may run.

    Attributes:
        fired: Events of triggers.
        host_deaths: Processes with triggers that ended although nobody asked them to.
    """

    def __init__(self, running: Callable[[], int], capacity: int) -> None:
        self.fired = Counter("pubsubflow_triggerer_fired", "Events that triggers have given.")
        self.host_deaths = Counter(
            "pubsubflow_triggerer_host_deaths",
            "Processes with triggers that crashed or were killed for not answering.",
        )
        self._looks = (
            Gauge("pubsubflow_triggerer_triggers", "Triggers that this triggerer runs.", running),
            Gauge(
                "pubsubflow_triggerer_capacity",
                "Triggers that this triggerer may run.",
                lambda: capacity,
            ),
        )

    def __iter__(self) -> Iterator[Figure]:
        """Iterate over all of them."""
        yield from (*self._looks, self.fired, self.host_deaths)
