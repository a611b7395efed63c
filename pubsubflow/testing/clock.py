"""Virtual clocks for tests: time passes only when the test advances it."""

import heapq
from datetime import UTC, datetime, timedelta
from itertools import count

import anyio
import anyio.lowlevel

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class VirtualClock:
    """A clock for tests, also as the context of a trigger.

    Args:
        start: Its first moment, with a zone; 2026-01-01 00:00 UTC when left out.
    """

    def __init__(self, start: datetime = BEGINNING) -> None:
        self._now = start
        self._wakeups: list[tuple[datetime, int, anyio.Event]] = []
        self._order = count()

    def now(self) -> datetime:
        """Return the time."""
        return self._now

    async def sleep_until(self, moment: datetime) -> None:
        """Return when the clock has come to `moment`."""
        if moment > self._now:
            await self.wakeup_at(moment).wait()
        else:
            await anyio.lowlevel.checkpoint()

    async def advance(self, by: timedelta | float) -> None:
        """Advance the time, from one sleeper's moment to the next.

        Each sleeper wakes at its own moment and runs until it waits again, before time goes on.

        Args:
            by: A timedelta, or seconds.
        """
        target = self._now + (by if isinstance(by, timedelta) else timedelta(seconds=by))
        await anyio.wait_all_tasks_blocked()
        while (moment := self.next_wakeup()) is not None and moment <= target:
            self.jump(moment)
            # Sleepers must reach their next sleep first, or their moments would be missed.
            await anyio.wait_all_tasks_blocked()
        self.jump(target)

    def wakeup_at(self, moment: datetime) -> anyio.Event:
        """Return an event that is set when the clock comes to `moment`."""
        event = anyio.Event()
        heapq.heappush(self._wakeups, (moment, next(self._order), event))
        return event

    def next_wakeup(self) -> datetime | None:
        """Return the earliest moment that a sleeper waits for."""
        return self._wakeups[0][0] if self._wakeups else None

    def jump(self, moment: datetime) -> None:
        """Set the clock forward at once and wake all sleepers whose moment has passed."""
        self._now = max(self._now, moment)
        while self._wakeups and self._wakeups[0][0] <= self._now:
            heapq.heappop(self._wakeups)[2].set()


class JumpingClock(VirtualClock):
    """A clock without waiting: a sleep sets it forward."""

    async def sleep_until(self, moment: datetime) -> None:
        """Set the clock to `moment` and return."""
        self.jump(moment)
        await anyio.lowlevel.checkpoint()
