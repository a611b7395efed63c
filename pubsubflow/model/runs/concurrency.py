"""Concurrency limits: how many tasks run at once, and which task is next.

A task may need a slot of several limits: of its pool, of its DAG (`max_active_tasks`) and of its
concurrency key. Tasks that need slots of the same limits wait in one queue, the highest priority
first, then the one that has waited longest. So only the head of each queue matters: whenever a
limit has a free slot, the next task is the best head among the queues all of whose limits have one.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from pubsubflow.model.wire.messages import TaskKey

POOL, DAG, KEY = "pool:", "dag:", "key:"


class Limit(Struct, frozen=True, order=True, array_like=True):
    """A limit on tasks that run at once.

    Attributes:
        name: `pool:<name>`, `dag:<dag id>` or `key:<concurrency key>`.
        most: Its number of slots; 0 for a pool, whose own setting counts.
    """

    name: str
    most: int = 0


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


class Waiter(Struct, frozen=True):
    """A task that waits in a queue.

    Attributes:
        position: Orders tasks by the time at which they began to wait.
    """

    task: TaskKey
    queue: int
    priority: int
    position: int


class Capacity:
    """The free slots of limits.

    Args:
        queues: All queues of the limits concerned.
        slots: Pool's name → its slots; a pool that is not here has no limit.
    """

    def __init__(self, queues: Iterable[WaitQueue], slots: Mapping[str, int]) -> None:
        self._slots = slots
        self._used: dict[str, int] = {}
        for queue in queues:
            self._take(queue, queue.used)

    def available(self, queue: WaitQueue) -> int:
        """Return how many tasks of a queue may start now."""
        return max(0, min((self._left(limit) for limit in queue.limits), default=queue.waiting))

    def choose(self, queues: Iterable[WaitQueue], waiters: Iterable[Waiter]) -> list[Waiter]:
        """Give slots to the next tasks, while there are any.

        Args:
            queues: The queues in which they wait.
            waiters: The first ones of each queue, as many as `available` allows.
        """
        # A slot given to one queue may be the last of a limit of the others: check each time.
        by_number = {queue.number: queue for queue in queues}
        chosen = []
        for waiter in sorted(waiters, key=lambda each: (-each.priority, each.position)):
            queue = by_number[waiter.queue]
            if self.available(queue) > 0:
                self._take(queue, 1)
                chosen.append(waiter)
        return chosen

    def full(self, queue: WaitQueue) -> list[tuple[str, int, int]]:
        """Return the limits that keep a queue waiting: name, used, slots."""
        return [
            (limit.name, self._used.get(limit.name, 0), self._most(limit) or 0)
            for limit in queue.limits
            if self._left(limit) <= 0
        ]

    def _most(self, limit: Limit) -> int | None:
        return limit.most or self._slots.get(limit.name.removeprefix(POOL))

    def _left(self, limit: Limit) -> int:
        most = self._most(limit)
        return _UNLIMITED if most is None else most - self._used.get(limit.name, 0)

    def _take(self, queue: WaitQueue, slots: int) -> None:
        for limit in queue.limits:
            self._used[limit.name] = self._used.get(limit.name, 0) + slots


_UNLIMITED = 2**31 - 1
