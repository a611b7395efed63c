"""One timer for many items that all wait equally long."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

_GRAIN_SECONDS = 0.02


class Alarm(Generic[Item]):
    """Hands each item to `ring` once its time is over; there is no cost per item but a list entry.

    Args:
        seconds: How long each item waits, give or take 20 ms.
        ring: Called with the item; it decides whether the item still matters.
    """

    def __init__(self, seconds: float, ring: Callable[[Item], None]) -> None:
        self._seconds = seconds
        self._ring = ring
        self._items: deque[tuple[float, Item]] = deque()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, item: Item) -> None:
        """Let an item wait."""
        now = self._loop.time()
        self._items.append((now, item))
        if self._timer is None:
            self._timer = self._loop.call_at(now + self._seconds, self._fire)

    def stop(self) -> None:
        """Forget all items."""
        self._items.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        due = self._loop.time() - self._seconds
        while self._items and self._items[0][0] <= due:
            self._ring(self._items.popleft()[1])
        self._timer = None
        if self._items:
            then = max(self._items[0][0] + self._seconds, self._loop.time() + _GRAIN_SECONDS)
            self._timer = self._loop.call_at(then, self._fire)
