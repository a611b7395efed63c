"""The assignments that a process was sent: which have begun in it, and which must not any more."""

import asyncio
from collections.abc import Collection, Iterator

from pubsubflow.runner.flight_recorder import BEGUN, REVOKED_AFTER, REVOKED_UNTIL, SharedPage
from pubsubflow.worker.assignment import Assignment


class SentAssignments:
    """The assignments of a process, oldest first.

    Args:
        one_at_a_time: Whether each begins when the one before it has ended.

    Attributes:
        count: How many it was sent since its start.
        page: The numbers that it shares with the worker; without them it is taken for one that has
            begun all that it was sent.
    """

    def __init__(self, *, one_at_a_time: bool) -> None:
        self._one_at_a_time = one_at_a_time
        self.count = 0
        self.page: SharedPage | None = None
        self._by_position: dict[int, Assignment] = {}
        self._front_since = 0.0  # by the loop's clock, which nobody sets
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._by_position)

    def __iter__(self) -> Iterator[Assignment]:
        """Iterate over them, the oldest first."""
        return iter(self._by_position.values())

    def get(self, position: int) -> Assignment | None:
        """Return the one of a position; None if it is gone."""
        return self._by_position.get(position)

    @property
    def front(self) -> Assignment | None:
        """The oldest one: the one that runs, if one runs at a time."""
        return next(iter(self._by_position.values()), None)

    @property
    def front_seconds(self) -> float:
        """For how long the oldest one has been that; 0 without one."""
        return self._loop.time() - self._front_since if self._by_position else 0.0

    @property
    def running(self) -> Collection[Assignment]:
        """Those that run: of a process for one task at a time only the oldest one."""
        return tuple(self)[: 1 if self._one_at_a_time else None]

    def add(self, assignment: Assignment) -> None:
        """Add one that the process is sent now, and give it its position."""
        self.count += 1
        # It may have been here before, and be on its way back: a number of its own each time.
        assignment.position = self.count
        if not self._by_position:
            self._front_since = self._loop.time()
        self._by_position[assignment.position] = assignment

    def remove(self, assignment: Assignment) -> bool:
        """Remove one of which nothing is left to run; return whether it was the oldest one."""
        was_front = self.front is assignment
        del self._by_position[assignment.position]
        if was_front:
            self._front_since = self._loop.time()
        return was_front

    def has_begun(self, assignment: Assignment) -> bool:
        """Return whether one has begun."""
        return self.page is None or self.page[BEGUN] >= assignment.position

    def has_ended(self, assignment: Assignment) -> bool:
        """Return whether one has ended, if one runs at a time: its result is on its way."""
        return self.page is not None and self.page[BEGUN] > assignment.position

    def unbegun(self) -> list[Assignment]:
        """Return what has not begun; of a process that is gone, it never does."""
        if self.page is None:
            return []
        begun = self.page[BEGUN]
        return [each for each in self if each.position > begun]

    def revoke(self) -> list[Assignment]:
        """Return what has not begun; it does not begin any more."""
        page = self.page
        if page is None:
            return []
        page[REVOKED_AFTER], page[REVOKED_UNTIL] = page[BEGUN], self.count
        # Read once more, after that is written: one that began in between and saw it is sent back
        # by the process.
        return self.unbegun()
