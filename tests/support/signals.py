"""Signals wake a waiting test when something has changed, in place of sleeping."""

import inspect
import math

import anyio

TIMEOUT_SECONDS = 60


class Signal:
    """A condition variable for one event loop: `notify` wakes everything that waits."""

    def __init__(self):
        self._event = anyio.Event()

    def notify(self, *_):
        self._event.set()
        self._event = anyio.Event()

    async def wait_until(self, check, *, seconds=TIMEOUT_SECONDS, poll_seconds=math.inf):
        """Return what a check gives, once it is true.

        Args:
            check: A function or a coroutine function; called again after each `notify`.
            seconds: Raises TimeoutError after that.
            poll_seconds: Also calls it that often, for changes that nothing notifies of.
        """
        with anyio.fail_after(seconds):
            while True:
                # Taken before the check: a change during the check must wake us as well.
                event = self._event
                found = check()
                if inspect.isawaitable(found):
                    found = await found
                if found:
                    return found
                with anyio.move_on_after(poll_seconds):
                    await event.wait()


class CallRecorder:
    """A callback that keeps its arguments; a test waits for a number of calls."""

    def __init__(self, then=None):
        self.items = []
        self._then = then
        self._signal = Signal()

    def __call__(self, item=None):
        self.items.append(item)
        if self._then is not None:
            self._then(item)
        self._signal.notify()

    async def wait_for(self, count, seconds=TIMEOUT_SECONDS):
        await self._signal.wait_until(lambda: len(self.items) >= count, seconds=seconds)
        return self.items
