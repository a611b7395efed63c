"""Thread slots: calls that may never return, each in a thread that it holds until it does."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

T = TypeVar("T")


class ThreadSlots:
    """Runs calls in threads, of which there are never more than slots.

    A thread cannot be ended: a call that nothing waits for any more goes on, and holds its slot.

    Args:
        slots: How many.

    Attributes:
        stuck: Calls that go on although nothing waits for them.
    """

    def __init__(self, slots: int) -> None:
        self._limiter = anyio.CapacityLimiter(slots)
        self._slots = slots
        self.stuck = 0

    @property
    def are_all_stuck(self) -> bool:
        """Whether no call can begin before one returns that nothing waits for."""
        return self.stuck >= self._slots

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function in a thread, once there is a slot, and return what it returns.

        Cancelled, it leaves the call to itself. What the function raises is raised here.
        """
        call = _Call(self, function)
        await self._limiter.acquire_on_behalf_of(call)
        try:
            # A limiter of its own: anyio's would be free with the cancellation.
            await anyio.to_thread.run_sync(
                call.run, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
            )
            return call.result
        finally:
            if call.abandon():
                self.stuck += 1
            else:
                self._limiter.release_on_behalf_of(call)

    def end_stuck(self, call: object) -> None:
        """Free the slot of a call that returned after it had been left."""
        self.stuck -= 1
        self._limiter.release_on_behalf_of(call)


class _Call(Generic[T]):
    """One call, whose thread may outlast the wait for it.

    Attributes:
        result: What the function returned.
    """

    result: T

    def __init__(self, slots: ThreadSlots, function: Callable[[], T]) -> None:
        self._slots = slots
        self._function = function
        self._lock = threading.Lock()
        self._running = self._left = False

    def run(self) -> None:
        if not self._begin():
            return
        try:
            self.result = self._function()
        finally:
            with self._lock:
                self._running = False
                left = self._left
            if left:
                anyio.from_thread.run_sync(self._slots.end_stuck, self)

    def _begin(self) -> bool:
        """Return whether something still waits for the result."""
        with self._lock:
            self._running = not self._left
            return self._running

    def abandon(self) -> bool:
        """Wait for the result no longer; return whether the call still runs."""
        with self._lock:
            self._left = True
            return self._running
