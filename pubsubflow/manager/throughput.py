"""How far behind a manager is, measured where items wait and where they are done."""

from collections import deque
from collections.abc import Sequence
from time import monotonic

from pubsubflow.manager.inbox import Item
from pubsubflow.manager.settings import ManagerSettings
from pubsubflow.model.wire.backlog import Backlog

_MEMORY = 0.9
"""Share of what was measured before that a batch leaves standing: some 10 batches count."""


def fill(batch: list[Item], waiting: deque[Item], settings: ManagerSettings) -> None:
    """Move what waits into a batch until it is full, in order.

    A post of many events counts as so many, so that a batch takes about the same time whatever it
    is made of; one that is larger than that goes alone.
    """
    weight = sum(item.weight for item in batch)
    while waiting and len(batch) < settings.batch:
        weight += waiting[0].weight
        if batch and weight > settings.batch_events:
            return
        batch.append(waiting.popleft())


class Pace:
    """What a manager has folded lately, and how long that took.

    Attributes:
        batch: What it folds now.
    """

    def __init__(self) -> None:
        self.batch: list[Item] = []
        self._began = 0.0
        self._weight = 0.0
        self._seconds = 0.0

    def begin(self) -> None:
        """Note that a batch is begun."""
        self._began = monotonic()

    def folded(self, batch: list[Item]) -> list[Item]:
        """Note that a batch is committed; empty it, and return what it held."""
        items = batch.copy()
        batch.clear()
        self._weight = self._weight * _MEMORY + sum(item.weight for item in items)
        self._seconds = self._seconds * _MEMORY + (monotonic() - self._began)
        return items

    def backlog(self, waiting: Sequence[Item], *, away: bool) -> Backlog:
        """Return what was called for and is not folded yet.

        Messages from the bus count for the age only: JetStream counts them until they are done.
        """
        items = [*self.batch, *waiting]
        return Backlog(
            pending=sum(item.weight for item in items if not item.from_bus),
            oldest_seconds=monotonic() - items[0].since if items else 0.0,
            rate=self._weight / self._seconds if self._seconds else 0.0,
            away=away,
        )
