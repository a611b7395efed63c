"""Limits on how many tasks run at once, and who is next.

A task may need a slot of several: of the pool that it names, of its DAG (`max_active_tasks`) and
of its concurrency key. Tasks that need slots of the same limits stand in one line, the highest
priority first, then who has waited longest. So of each line only the head matters: whenever a
limit has room, the best head among its lines whose other limits have room too is next.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

POOL, DAG, KEY = "pool:", "dag:", "key:"


class Limit(Struct, frozen=True, order=True, array_like=True):
    """Something that has slots.

    Attributes:
        name: `pool:<name>`, `dag:<dag id>` or `key:<concurrency key>`.
        most: How many at once; 0 where that is the pool's to say.
    """

    name: str
    most: int = 0


class Line(Struct):
    """Tasks that need slots of the same limits.

    Attributes:
        used: How many have theirs.
        waiting: How many wait.
    """

    number: int
    limits: tuple[Limit, ...]
    used: int
    waiting: int


class Waiter(Struct, frozen=True):
    """A task that waits in a line.

    Attributes:
        place: Run number, node, map index.
        position: Grows with the time since when it waits.
    """

    place: tuple[int, int, int]
    line: int
    priority: int
    position: int


class Room:
    """How many more tasks may run.

    Args:
        lines: All lines of the limits concerned.
        slots: Pool's name → how many at once; a pool that is not here has no limit.
    """

    def __init__(self, lines: Iterable[Line], slots: Mapping[str, int]) -> None:
        self._slots = slots
        self._used: dict[str, int] = {}
        for line in lines:
            self._take(line, line.used)

    def in_line(self, line: Line) -> int:
        """Return how many of a line may start now."""
        return max(0, min((self._left(limit) for limit in line.limits), default=line.waiting))

    def choose(self, lines: Iterable[Line], waiters: Iterable[Waiter]) -> list[Waiter]:
        """Give slots to those who are next, while there are any.

        Args:
            lines: The lines in which they wait.
            waiters: The first ones of each line, as many as may start of it alone.
        """
        by_number = {line.number: line for line in lines}
        chosen = []
        for waiter in sorted(waiters, key=lambda each: (-each.priority, each.position)):
            line = by_number[waiter.line]
            if self.in_line(line) > 0:
                self._take(line, 1)
                chosen.append(waiter)
        return chosen

    def full(self, line: Line) -> list[tuple[str, int, int]]:
        """Return the limits that keep a line waiting: name, used, slots."""
        return [
            (limit.name, self._used.get(limit.name, 0), self._most(limit) or 0)
            for limit in line.limits
            if self._left(limit) <= 0
        ]

    def _most(self, limit: Limit) -> int | None:
        return limit.most or self._slots.get(limit.name.removeprefix(POOL))

    def _left(self, limit: Limit) -> int:
        most = self._most(limit)
        return _BOUNDLESS if most is None else most - self._used.get(limit.name, 0)

    def _take(self, line: Line, slots: int) -> None:
        for limit in line.limits:
            self._used[limit.name] = self._used.get(limit.name, 0) + slots


_BOUNDLESS = 2**31 - 1
