"""Wakes requests that wait for news."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio

from pubsubflow.bus import Bus
from pubsubflow.errors import BusUnavailable

_SUBSCRIBE_SECONDS = 2.0


class Bell:
    """Rung by news; what rings between two waits is not lost."""

    def __init__(self) -> None:
        self._rung = anyio.Event()

    def ring(self, _: object = None) -> None:
        """Wake whoever waits, now or next."""
        self._rung.set()

    async def wait(self, seconds: float) -> None:
        """Wait until it rings, at most so long."""
        with anyio.move_on_after(max(seconds, 0)):
            await self._rung.wait()
        self._rung = anyio.Event()


class Bells:
    """All bells of the API; when the daemon stops, all ring.

    Args:
        bus: Where the news come from.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._bells: set[Bell] = set()
        self.stopping = False

    @asynccontextmanager
    async def on(self, *subjects: str) -> AsyncIterator[Bell]:
        """Give a bell that messages on subjects ring; on entry the server has the subscriptions.

        Raises:
            BusUnavailable: NATS is away.
        """
        bell = Bell()
        self._bells.add(bell)
        try:
            async with AsyncExitStack() as stack:
                for subject in subjects:
                    await stack.enter_async_context(await self._subscribe(subject, bell))
                yield bell
        finally:
            self._bells.discard(bell)

    async def _subscribe(self, subject: str, bell: Bell) -> AsyncExitStack:
        try:
            with anyio.fail_after(_SUBSCRIBE_SECONDS):
                subscription = await self._bus.subscribe(subject, bell.ring)
        except TimeoutError as error:
            raise BusUnavailable("NATS is out of reach: news cannot be waited for") from error
        stack = AsyncExitStack()
        stack.callback(subscription.unsubscribe)
        return stack

    def stop(self) -> None:
        """Let everybody who waits go."""
        self.stopping = True
        for bell in list(self._bells):
            bell.ring()
