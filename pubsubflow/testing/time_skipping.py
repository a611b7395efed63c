"""Time skipping: virtual time jumps to the next moment whenever all tasks sleep."""

import heapq
from collections.abc import Callable
from datetime import datetime
from itertools import count

import anyio

from pubsubflow.testing.clock import VirtualClock

MAX_JUMPS = 10_000


class Sleeper:
    """One sleep of a task or trigger.

    Attributes:
        over: It was woken, or its moment has come.
    """

    __slots__ = ("asleep", "event", "over")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.asleep = False
        self.over = False


class TimeSkipper:
    """Counts the tasks and triggers at work, and sets the clock to the next moment when all sleep.

    A sleeper also wakes when so much real time has passed: others may work for longer than that.

    Args:
        clock: The virtual clock.
        on_stuck: Called with True when all sleep and no moment is due, and with False when time
            jumps without end and no task continues.
        deadline: The latest end of the run; `on_deadline` is called then.
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
        self._sleepers: list[tuple[datetime, int, Sleeper]] = []
        self._asleep = 0
        self._order = count()
        self._jumps = 0

    def start_work(self) -> None:
        """Count one more at work."""
        self._busy += 1

    def end_work(self) -> None:
        """Count one less at work; time may jump."""
        self._busy -= 1
        self._skip()

    def reset_jumps(self) -> None:
        """Record that a task continues: the limit of jumps counts from here."""
        self._jumps = 0

    async def sleep(self, sleeper: Sleeper, until: datetime | None = None) -> None:
        """Sleep until the sleeper is woken or, at the latest, until a moment.

        Args:
            sleeper: One that was not used before.
            until: The moment; None to be woken only.
        """
        if sleeper.over:
            return
        delay = None
        if until is not None:
            delay = (until - self._clock.now()).total_seconds()
            if delay <= 0:
                sleeper.over = True
                return
            heapq.heappush(self._sleepers, (until, next(self._order), sleeper))
        sleeper.asleep = True
        self._asleep += 1
        try:
            self.end_work()
            with anyio.move_on_after(delay):
                await sleeper.event.wait()
            if until is not None and not sleeper.over:
                self._clock.jump(until)
        finally:
            # Also when it is cancelled: it must not count as asleep any more.
            self.wake(sleeper)

    def wake(self, sleeper: Sleeper) -> None:
        """Wake a sleeper; it counts as at work at once."""
        if sleeper.over:
            return
        # It counts as busy before its task runs again, or time would jump in between.
        sleeper.over = True
        sleeper.event.set()
        if sleeper.asleep:
            self._asleep -= 1
            self._busy += 1

    def _skip(self) -> None:
        """Skip to the next moment when all sleep."""
        while self._sleepers and self._sleepers[0][2].over:
            heapq.heappop(self._sleepers)
        if self._busy or not self._asleep:
            return
        self._jumps += 1
        if not self._sleepers or self._jumps > MAX_JUMPS:
            self._on_stuck(not self._sleepers)
            return
        moment = self._sleepers[0][0]
        if self._deadline is not None and moment > self._deadline:
            self._clock.jump(self._deadline)
            self._on_deadline()
            return
        self._clock.jump(moment)
        while self._sleepers and self._sleepers[0][0] <= moment:
            self.wake(heapq.heappop(self._sleepers)[2])
