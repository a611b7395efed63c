"""Lets virtual time jump as soon as nobody is at work any more."""

import heapq
from collections.abc import Callable
from datetime import datetime
from itertools import count

import anyio

from pubsubflow.testing.clock import VirtualClock

MOST_JUMPS = 10_000


class Nap:
    """One rest of somebody who is at work otherwise.

    Attributes:
        over: It was woken, or woke by itself.
    """

    __slots__ = ("asleep", "event", "over")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.asleep = False
        self.over = False


class Pace:
    """Counts who is at work, and sets the clock to the next moment when nobody is.

    Whoever waits for a moment also goes on when so much time has really passed: the others may be
    at work for longer than that.

    Args:
        clock: The virtual clock.
        on_stuck: Called with True when all rest and no moment is to come, and with False when time
            jumps without end and no task goes on.
        deadline: When the run is over at the latest; `on_deadline` is called then.
    """

    def __init__(
        self,
        clock: VirtualClock,
        *,
        on_stuck: Callable[[bool], None],
        deadline: datetime | None = None,
        on_deadline: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._on_stuck = on_stuck
        self._deadline = deadline
        self._on_deadline = on_deadline
        self._busy = 0
        self._naps: list[tuple[datetime, int, Nap]] = []
        self._asleep = 0
        self._numbers = count()
        self._jumps = 0

    def begin(self) -> None:
        """Count somebody as at work."""
        self._busy += 1

    def end(self) -> None:
        """Count one less; time may jump."""
        self._busy -= 1
        self._look()

    def progress(self) -> None:
        """Note that a task goes on."""
        self._jumps = 0

    async def rest(self, nap: Nap, until: datetime | None = None) -> None:
        """Rest until the nap is woken or, at the latest, a moment comes.

        Args:
            nap: A nap that was not rested yet.
            until: The moment; None to be woken only.
        """
        if nap.over:
            return
        delay = None
        if until is not None:
            delay = (until - self._clock.now()).total_seconds()
            if delay <= 0:
                nap.over = True
                return
            heapq.heappush(self._naps, (until, next(self._numbers), nap))
        nap.asleep = True
        self._asleep += 1
        try:
            self.end()
            with anyio.move_on_after(delay):
                await nap.event.wait()
            if until is not None and not nap.over:
                self._clock.jump(until)
        finally:
            self.wake(nap)

    def wake(self, nap: Nap) -> None:
        """Let somebody go on; at once counted as at work."""
        if nap.over:
            return
        nap.over = True
        nap.event.set()
        if nap.asleep:
            self._asleep -= 1
            self._busy += 1

    def _look(self) -> None:
        """Let time jump when nobody is at work."""
        while self._naps and self._naps[0][2].over:
            heapq.heappop(self._naps)
        if self._busy or not self._asleep:
            return
        self._jumps += 1
        if not self._naps or self._jumps > MOST_JUMPS:
            self._on_stuck(not self._naps)
            return
        moment = self._naps[0][0]
        if self._deadline is not None and moment > self._deadline:
            self._clock.jump(self._deadline)
            self._on_deadline()
            return
        self._clock.jump(moment)
        while self._naps and self._naps[0][0] <= moment:
            self.wake(heapq.heappop(self._naps)[2])
