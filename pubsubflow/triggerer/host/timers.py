"""A timer heap: all moments for which triggers sleep, with one timer of the event loop."""

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any

_LONGEST_SECONDS = 60.0
"""A clock that is set is noticed after that long."""
_MIN_ABANDONED = 256


class TimerHeap:
    """The sleepers of one event loop.

    Args:
        loop: The loop.
        now: The time, seconds since 1970 or any other moment.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> None:
        self._loop = loop
        self._now = now
        self._heap: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None
        self._abandoned = 0

    def __len__(self) -> int:
        """Return how many sleepers there are, with cancelled ones that are not removed yet."""
        return len(self._heap)

    def sleep_for(self, seconds: float) -> Coroutine[Any, Any, None]:
        """Return after so many seconds."""
        return self.sleep_until(self._now() + seconds)

    async def sleep_until(self, moment: float) -> None:
        """Return at a moment."""
        sleeper = self._loop.create_future()
        heapq.heappush(self._heap, (moment, next(self._order), sleeper))
        if self._heap[0][2] is sleeper:
            self._arm()
        try:
            await sleeper
        finally:
            if sleeper.cancelled():
                self._abandon()

    def _abandon(self) -> None:
        # Removing one from the middle of a heap costs its whole length: cancelled sleepers stay
        # until they are more than half of it.
        self._abandoned += 1
        if self._abandoned > max(len(self._heap) // 2, _MIN_ABANDONED):
            self._heap = [each for each in self._heap if not each[2].done()]
            heapq.heapify(self._heap)
            self._abandoned = 0
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            seconds = min(max(self._heap[0][0] - self._now(), 0.0), _LONGEST_SECONDS)
            self._timer = self._loop.call_later(seconds, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._now()
        while self._heap and self._heap[0][0] <= now:
            sleeper = heapq.heappop(self._heap)[2]
            if sleeper.done():
                self._abandoned -= 1
            else:
                sleeper.set_result(None)
        self._arm()
