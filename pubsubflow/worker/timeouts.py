"""A timeout queue: one timer of the event loop for many items with the same timeout."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_GRAIN_SECONDS = 0.02


class TimeoutQueue(Generic[T]):
    """Hands each item to a function after the same time; an item costs a list entry, no timer.

    Args:
        seconds: The timeout of each item, give or take 20 ms.
        on_timeout: Called with the item; it decides whether the item still matters.
    """

    def __init__(self, seconds: float, on_timeout: Callable[[T], None]) -> None:
        self._seconds = seconds
        self._on_timeout = on_timeout
        self._items: deque[tuple[float, T]] = deque()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, item: T) -> None:
        """Start the timeout of an item."""
        now = self._loop.time()
        self._items.append((now, item))
        if self._timer is None:
            self._timer = self._loop.call_at(now + self._seconds, self._fire)

    def stop(self) -> None:
        """Drop all items."""
        self._items.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        due = self._loop.time() - self._seconds
        while self._items and self._items[0][0] <= due:
            self._on_timeout(self._items.popleft()[1])
        self._timer = None
        if self._items:
            # Not before the grain is over: thousands of items that are due one after another
            # would otherwise wake the loop a thousand times.
            then = max(self._items[0][0] + self._seconds, self._loop.time() + _GRAIN_SECONDS)
            self._timer = self._loop.call_at(then, self._fire)
