"""Concurrency limits: how many tasks run at once, and which task is next.

A task may need slots of several limits: of its pool, of its DAG (`max_active_tasks`) and of its
concurrency key, and a start of its rate limit. Tasks that need the same wait in one queue, the
highest priority first, then the one that has waited longest. So only the head of each queue
matters: whenever a limit has free slots, the next task is the best head among the queues all of
whose limits have enough.

A task that takes several slots of a pool would wait for ever while others pass it with one. So when
it is the first in order and lacks nothing else, it gathers: what is free stays free for it.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from pubsubflow.model.wire.messages import TaskKey

POOL, DAG, KEY, RATE, TAG = "pool:", "dag:", "key:", "rate:", "tag:"


class Limit(Struct, frozen=True, order=True, array_like=True):
    """A limit on tasks that run at once, or that start in a time.

    Attributes:
        name: `pool:<name>`, `dag:<dag id>`, `key:<concurrency key>`, `rate:<name>` or `tag:<tag>`.
        most: Its number of slots; 0 for a pool, a tag or a rate limit, whose own setting counts.
        weight: How many slots of a pool a task takes.
    """

    name: str
    most: int = 0
    weight: int = 1

    @property
    def capacity(self) -> int:
        """Its number of slots as it is stored: less than 0 is the weight of a pool's tasks."""
        return self.most if self.weight == 1 else -self.weight

    @classmethod
    def stored(cls, name: str, capacity: int) -> "Limit":
        """Return the limit that is stored with this capacity."""
        return cls(name, capacity) if capacity >= 0 else cls(name, 0, -capacity)


class WaitQueue(Struct):
    """Tasks that need slots of the same limits.

    Attributes:
        used: Number of tasks that have their slots.
        waiting: Number of tasks that wait.
    """

    number: int
    limits: tuple[Limit, ...]
    used: int
    waiting: int

    @property
    def weighted(self) -> bool:
        """Whether its tasks take several slots of a pool."""
        return any(limit.weight > 1 for limit in self.limits)


class Waiter(Struct, frozen=True):
    """A task that waits in a queue.

    Attributes:
        position: Orders tasks by the time at which they began to wait.
    """

    task: TaskKey
    queue: int
    priority: int
    position: int


class FullLimit(Struct, frozen=True):
    """A limit that keeps a queue waiting.

    Attributes:
        used: Slots that are used.
        slots: All its slots.
    """

    limit: Limit
    used: int
    slots: int


class Capacity:
    """The free slots of limits.

    Args:
        queues: All queues of the limits concerned.
        slots: Pool's name, or `tag:<tag>` → its slots; one that is not here has no limit.
        starts: Rate limit's name → how many tasks may start at once.

    Attributes:
        started: Rate limit's name → how many tasks have been chosen.
    """

    def __init__(
        self,
        queues: Iterable[WaitQueue],
        slots: Mapping[str, int],
        starts: Mapping[str, int] | None = None,
    ) -> None:
        self._slots = slots
        self._starts = starts or {}
        self._used: dict[str, int] = {}
        self._gathering: set[str] = set()
        self.started: dict[str, int] = {}
        for queue in queues:
            self._take(queue, queue.used)

    def available(self, queue: WaitQueue) -> int:
        """Return how many tasks of a queue may start now."""
        fitting = (self._left(limit) // limit.weight for limit in queue.limits)
        return max(0, min(fitting, default=queue.waiting))

    def heads(self, queue: WaitQueue) -> int:
        """Return how many of the first tasks of a queue take part in a choice."""
        return max(self.available(queue), int(queue.weighted and queue.waiting > 0))

    def choose(self, queues: Iterable[WaitQueue], waiters: Iterable[Waiter]) -> list[Waiter]:
        """Give slots to the next tasks, while there are any.

        Args:
            queues: The queues in which they wait.
            waiters: The first ones of each queue, as many as `heads` says.
        """
        # A slot given to one queue may be the last of a limit of the others: check each time.
        by_number = {queue.number: queue for queue in queues}
        chosen = []
        for waiter in sorted(waiters, key=lambda each: (-each.priority, each.position)):
            queue = by_number[waiter.queue]
            if self.available(queue) > 0:
                self._take(queue, 1)
                self._start(queue)
                chosen.append(waiter)
            elif queue.weighted:
                self._gather(queue)
        return chosen

    def full(self, queue: WaitQueue) -> list[FullLimit]:
        """Return the limits that keep a queue waiting."""
        return [
            FullLimit(limit, self._used.get(limit.name, 0), self._most(limit) or 0)
            for limit in queue.limits
            if self._left(limit) < limit.weight
        ]

    def _most(self, limit: Limit) -> int | None:
        return limit.most or self._slots.get(limit.name.removeprefix(POOL))

    def _left(self, limit: Limit) -> int:
        if limit.name.startswith(RATE):
            name = limit.name.removeprefix(RATE)
            return self._starts.get(name, 0) - self.started.get(name, 0)
        most = self._most(limit)
        return _UNLIMITED if most is None else most - self._used.get(limit.name, 0)

    def _take(self, queue: WaitQueue, tasks: int) -> None:
        for limit in queue.limits:
            self._used[limit.name] = self._used.get(limit.name, 0) + tasks * limit.weight

    def _start(self, queue: WaitQueue) -> None:
        for limit in queue.limits:
            if limit.name.startswith(RATE):
                name = limit.name.removeprefix(RATE)
                self.started[name] = self.started.get(name, 0) + 1

    def _gather(self, queue: WaitQueue) -> None:
        """Keep free what the next task of a queue needs, if it lacks slots of its pool alone."""
        lacking = [limit for limit in queue.limits if self._left(limit) < limit.weight]
        names = {limit.name for limit in lacking}
        # One at a time, and none that the pool could never hold.
        possible = all(1 < limit.weight <= (self._most(limit) or 0) for limit in lacking)
        if possible and not names & self._gathering:
            self._take(queue, 1)
            self._gathering |= names


_UNLIMITED = 2**31 - 1
