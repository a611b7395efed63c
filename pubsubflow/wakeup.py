"""Wakeups end a wait early: a message on NATS, or the end of the daemon, comes before the timeout.

The timeout of every wait is only the safety net for a message that was lost.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import anyio
import structlog

from pubsubflow.bus import Bus, Message
from pubsubflow.errors import BusUnavailable
from pubsubflow.model.wire.subjects import Subjects

log = structlog.get_logger(__name__)

_SUBSCRIBE_SECONDS = 2.0
_RETRY_SECONDS = 1.0


class Wakeup:
    """An event that resets itself; a notification between two waits ends the second one at once."""

    def __init__(self) -> None:
        self._notified = anyio.Event()

    def notify(self, _: object = None) -> None:
        """End the wait under way, or else the next one."""
        self._notified.set()

    async def wait(self, seconds: float) -> None:
        """Wait for a notification, `seconds` at most."""
        with anyio.move_on_after(max(seconds, 0)):
            await self._notified.wait()
        # No checkpoint lies between the end of the wait and the new event: nothing gets lost here.
        self._notified = anyio.Event()


class RunEnd(Wakeup):
    """Ends the wait for the end of a run.

    Attributes:
        result: The encoded result of the run, as it was committed; None when it must be read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.result: bytes | None = None


class RunEnds:
    """Ends of runs for which others in this daemon wait: its manager announces what it commits.

    What the manager of another daemon commits is announced on NATS alone.

    Attributes:
        waiting: Run → the waits for its end.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, list[RunEnd]] = {}

    @contextmanager
    def awaited(self, run_id: str) -> Iterator[RunEnd]:
        """Yield what ends a wait within the block, when the run has ended."""
        end = RunEnd()
        ends = self.waiting.setdefault(run_id, [])
        ends.append(end)
        try:
            yield end
        finally:
            ends.remove(end)
            if not ends:
                del self.waiting[run_id]

    def announce(self, run_id: str, result: bytes | None) -> None:
        """End the waits for a run whose end is committed.

        Args:
            run_id: The run.
            result: Its encoded result, if it succeeded and that is at hand.
        """
        for end in self.waiting.get(run_id, ()):
            end.result = result
            end.notify()


class Wakeups:
    """All wakeups of the API; `stop` notifies every one of them.

    Args:
        bus: Delivers the messages that notify.

    Attributes:
        stopping: Whether the daemon stops; those who wait in a loop then return.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._wakeups: set[Wakeup] = set()
        self.stopping = False

    @asynccontextmanager
    async def on(
        self,
        *subjects: str,
        when: Callable[[bytes], bool] | None = None,
        wakeup: Wakeup | None = None,
        confirmed: bool = True,
    ) -> AsyncIterator[Wakeup]:
        """Yield a wakeup that messages on subjects notify; the subscriptions exist on entry.

        Args:
            subjects: The subjects.
            when: Whether a message with this content notifies; all do if left out.
            wakeup: What is notified; a new one if left out.
            confirmed: Whether NATS is to confirm the subscriptions first. Without, messages of the
                next moment may be missed: for those who look for themselves soon.

        Raises:
            BusUnavailable: NATS is out of reach.
        """
        wakeup = wakeup or Wakeup()
        self._wakeups.add(wakeup)
        try:
            async with AsyncExitStack() as stack:
                for subject in subjects:
                    notify = wakeup.notify if when is None else _notify_when(wakeup, when)
                    if confirmed:
                        await stack.enter_async_context(await self._subscribe(subject, notify))
                    else:
                        stack.callback(self._bus.listen(subject, notify).unsubscribe)
                yield wakeup
        finally:
            self._wakeups.discard(wakeup)

    async def refresh(
        self, load: Callable[[], Awaitable[None]], *subjects: str, sweep_seconds: float
    ) -> None:
        """Call `load` at once, at each message on subjects and every `sweep_seconds`.

        While NATS is out of reach it is called before each attempt to subscribe again. Runs until
        it is cancelled.
        """
        while True:
            try:
                async with self.on(*subjects) as wakeup:
                    while True:
                        # After the subscription, not before: a change in between is not missed.
                        await load()
                        await wakeup.wait(sweep_seconds)
            except BusUnavailable as error:
                log.warning("wakeup.subscribe_failed", subjects=subjects, reason=str(error))
            await load()
            await anyio.sleep(_RETRY_SECONDS)

    async def _subscribe(self, subject: str, notify: Callable[[Message], None]) -> AsyncExitStack:
        try:
            with anyio.fail_after(_SUBSCRIBE_SECONDS):
                subscription = await self._bus.subscribe(subject, notify)
        except TimeoutError as error:
            raise BusUnavailable(f"cannot subscribe to {subject}: NATS is out of reach") from error
        stack = AsyncExitStack()
        stack.callback(subscription.unsubscribe)
        return stack

    def stop(self) -> None:
        """Notify every wakeup, and mark the API as stopping."""
        self.stopping = True
        for wakeup in list(self._wakeups):
            wakeup.notify()


def _notify_when(wakeup: Wakeup, when: Callable[[bytes], bool]) -> Callable[[Message], None]:
    def notify(message: Message) -> None:
        if when(message.data):
            wakeup.notify()

    return notify


def announce_variable(bus: Bus, name: str) -> None:
    """Wake the loaders whose files use a variable that has changed."""
    try:
        bus.publish(Subjects.VARIABLES_CHANGED, name.encode())
    except BusUnavailable as error:
        # The change is stored; loaders find it by their sweep.
        log.warning("variables.announce_failed", reason=str(error))
